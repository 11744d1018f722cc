"""Step rules of gradient ascent on a misreport."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from truthful.shapes import Float


class StepRule(ABC):
    """Turns gradients into moves. It starts afresh at every visit of a sample; its state is the caller's."""

    relative: bool = False
    """Whether gradients and moves are in coordinates where the support's box is the unit cube."""

    def draw(self, values: Float[Tensor, "b n c"], generator: torch.Generator) -> tuple[Tensor, ...]:
        """The random numbers of a visit, if it needs any."""
        return ()

    @abstractmethod
    def begin(self, point: Tensor, *drawn: Tensor) -> tuple[Tensor, ...]:
        """The state before the first move from `point`; `drawn` is what `draw` drew."""

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
        self.length = positive("the length of a misreport step", length)

    def begin(self, point: Tensor, *drawn: Tensor) -> tuple[Tensor, ...]:
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
        self.length = positive("the length of a misreport step", length)

    def begin(self, point: Tensor, *drawn: Tensor) -> tuple[Tensor, ...]:
        """It has no memory."""
        return ()

    def __call__(self, gradient: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One move of ascent."""
        return (self.length * gradient,)


class SignStep(StepRule):
    """The same distance in every item, up or down the slope: Adam's first move, whatever the units of value.

    Args:
        length: of the move in each item, as a share of the support's width.
    """

    relative = True

    def __init__(self, length: float) -> None:
        self.length = positive("the length of a misreport step", length)

    def begin(self, point: Tensor, *drawn: Tensor) -> tuple[Tensor, ...]:
        """It has no memory."""
        return ()

    def __call__(self, gradient: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One move of ascent."""
        return (self.length * gradient.sign(),)


class NormalisedStep(StepRule):
    """A step of one length along the gradient, however steep.

    Args:
        length: Euclidean, in shares of the support's width.
    """

    relative = True

    def __init__(self, length: float) -> None:
        self.length = positive("the length of a misreport step", length)

    def begin(self, point: Tensor, *drawn: Tensor) -> tuple[Tensor, ...]:
        """It has no memory."""
        return ()

    def __call__(self, gradient: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One move of ascent."""
        size = gradient.square().sum(-1, keepdim=True).sqrt()
        return (self.length * gradient / (size + 1e-9),)


class RandomLength(StepRule):
    """Another rule's moves, shortened by a factor s^power that is drawn for each profile and bidder, s ~ U(0, 1).

    A fixed length teaches a network to be honest at that distance and nowhere else; a random one leaves no such place.

    Args:
        step: the rule, whose length becomes the longest.
        power: 1 for lengths uniform up to it, more for shorter ones.
    """

    def __init__(self, step: StepRule, power: float) -> None:
        self.step, self.power = step, positive("the power of a random length", power)
        self.relative = step.relative

    def draw(self, values: Float[Tensor, "b n c"], generator: torch.Generator) -> tuple[Tensor, ...]:
        """The factors, and what the rule itself draws."""
        uniform = torch.rand(values.shape[:-1], generator=generator, dtype=values.dtype)
        return uniform.pow(self.power).to(values.device), *self.step.draw(values, generator)

    def begin(self, point: Tensor, *drawn: Tensor) -> tuple[Tensor, ...]:
        """The factors, and the rule's own state."""
        factor, *others = drawn
        return factor, *self.step.begin(point, *others)

    def __call__(self, gradient: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The rule's move, shortened."""
        factor, *others = state
        move, *others = self.step(gradient, *others)
        return factor.unsqueeze(-1) * move, factor, *others


def positive(name: str, number: float) -> float:
    """The number. Raises ValueError unless it is positive and finite."""
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be a positive number, got {number!r}")
    return number
