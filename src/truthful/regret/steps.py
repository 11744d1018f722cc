"""Step rules of gradient ascent on a misreport."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class StepRule(ABC):
    """Turns gradients into moves. It starts afresh at every visit of a sample; its state is the caller's."""

    @abstractmethod
    def begin(self, point: Tensor) -> tuple[Tensor, ...]:
        """The state before the first move from `point`."""

    @abstractmethod
    def __call__(self, gradient: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The move along `gradient`, and the state for the next call after it."""


class AdamStep(StepRule):
    """Adam (Kingma and Ba 2015), reset at every visit as released: its first move is length * sign(gradient).

    Args:
        length: learning rate, in units of value.
    """

    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7

    def __init__(self, length: float) -> None:
        self.length = _positive(length)

    def begin(self, point: Tensor) -> tuple[Tensor, ...]:
        """First and second moment, and the powers of their decay rates (in float64: 1 - rate^t is small)."""
        one = torch.ones((), dtype=torch.float64, device=point.device)
        return torch.zeros_like(point), torch.zeros_like(point), one, one

    def __call__(self, gradient: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One Adam move of ascent."""
        mean, square, power1, power2 = state
        power1, power2 = self.BETA1 * power1, self.BETA2 * power2
        mean = torch.lerp(gradient, mean, self.BETA1)
        square = torch.lerp(gradient.square(), square, self.BETA2)
        scale = self.length / (1 - power1)
        move = scale * mean / ((square / (1 - power2)).sqrt() + self.EPSILON)
        return move, mean, square, power1, power2


class GradientStep(StepRule):
    """A plain gradient step, length * gradient (the paper's algorithm 1).

    Args:
        length: learning rate.
    """

    def __init__(self, length: float) -> None:
        self.length = _positive(length)

    def begin(self, point: Tensor) -> tuple[Tensor, ...]:
        """It has no memory."""
        return ()

    def __call__(self, gradient: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One move of ascent."""
        return (self.length * gradient,)


def _positive(length: float) -> float:
    if not 0 < length < math.inf:
        raise ValueError(f"the length of a misreport step must be a positive number, got {length!r}")
    return length
