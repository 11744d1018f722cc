"""Step rules of gradient ascent on a misreport."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


class StepRule(ABC):
    """Turns gradients into moves. It starts afresh at every visit of a sample; its state is the caller's."""

    @abstractmethod
    def __call__(self, gradient: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The move along `gradient` and the state for the next call; `state` is None on the first."""


class AdamStep(StepRule):
    """Adam (Kingma and Ba 2015), reset at every visit as released: its first move is length * sign(gradient).

    Args:
        length: learning rate, in units of value.
    """

    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7

    def __init__(self, length: float) -> None:
        self.length = _positive(length)

    def __call__(self, gradient: Tensor, state: tuple[Tensor, Tensor, int] | None) -> tuple[Tensor, Any]:
        """One Adam move of ascent."""
        if state is None:
            mean, square, t = (1 - self.BETA1) * gradient, (1 - self.BETA2) * gradient.square(), 1
        else:
            mean, square, t = state[0], state[1], state[2] + 1
            mean = torch.lerp(gradient, mean, self.BETA1)
            square = torch.lerp(gradient.square(), square, self.BETA2)
        scale = self.length / (1 - self.BETA1**t)
        move = scale * mean / ((square / (1 - self.BETA2**t)).sqrt() + self.EPSILON)
        return move, (mean, square, t)


class GradientStep(StepRule):
    """A plain gradient step, length * gradient (the paper's algorithm 1).

    Args:
        length: learning rate.
    """

    def __init__(self, length: float) -> None:
        self.length = _positive(length)

    def __call__(self, gradient: Tensor, state: None) -> tuple[Tensor, None]:
        """One move of ascent."""
        return self.length * gradient, None


def _positive(length: float) -> float:
    if not 0 < length < math.inf:
        raise ValueError(f"the length of a misreport step must be a positive number, got {length!r}")
    return length
