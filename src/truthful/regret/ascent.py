"""Gradient ascent on misreports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from truthful.auction import Outcome, deviation_utility, utility
from truthful.mechanisms.base import Mechanism
from truthful.regret.base import Found, Run, Search, directly
from truthful.regret.steps import RandomLength, StepRule
from truthful.settings.base import Setting
from truthful.shapes import Bool, Float, Int


class GradientAscent(Search):
    """`steps` moves of `step` along the gradient of the deviator's utility, each projected onto the support.

    Args:
        steps: number of moves, Gamma in the paper.
        step: the step rule.
    """

    def __init__(self, steps: int, step: StepRule) -> None:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"a search needs a whole number of steps of at least 1, got {steps!r}")
        self.steps, self.step = steps, step
        self.varies = isinstance(step, RandomLength)

    def draw(self, values: Float[Tensor, "b n c"], generator: torch.Generator) -> tuple[Tensor, ...]:
        """What the step rule draws."""
        return self.step.draw(values, generator)

    def climb(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        start: Float[Tensor, "*s n r"],
        drawn: tuple[Tensor, ...] = (),
        gradient: Float[Tensor, "*s n r"] | None = None,
        run: Run = directly,
    ) -> Float[Tensor, "*s n r"]:
        """Only the last iterate."""
        point = start.detach()
        state: Sequence[Tensor] = self.step.begin(point, *drawn)
        if gradient is not None:
            point, *state = self._move(setting, point, gradient, state)
        for _ in range(self.steps - (gradient is not None)):
            point, *state = run(self._climb_once, mechanism, setting, values, point, *state)
        return point

    def __call__(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        start: Float[Tensor, "*s n r"],
        drawn: tuple[Tensor, ...] = (),
    ) -> Found:
        """The best misreport seen, of the start, the iterates and the truth."""
        point = start.detach()
        state: Sequence[Tensor] = self.step.begin(point, *drawn)
        with frozen(mechanism), torch.no_grad():
            truth = utility(values, mechanism(values))
            best = values[..., : start.shape[-1]].expand_as(start).clone()
            best_utility = truth.expand(start.shape[:-1]).clone()
            for k in range(self.steps + 1):
                if k < self.steps:
                    reached, gradient = utility_and_gradient(mechanism, values, point)
                else:
                    reached = deviation_utility(mechanism, values, point)
                better = reached > best_utility
                best = torch.where(better.unsqueeze(-1), point, best)
                best_utility = torch.where(better, reached, best_utility)
                if k < self.steps:
                    point, *state = self._move(setting, point, gradient, state)
        return Found(best, best_utility - truth, point)

    def _climb_once(
        self, mechanism: Mechanism, setting: Setting, values: Tensor, point: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        with frozen(mechanism):
            _, gradient = utility_and_gradient(mechanism, values, point)
        return self._move(setting, point, gradient, state)

    def _move(self, setting: Setting, point: Tensor, gradient: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if not self.step.relative:
            move, *state = self.step(gradient, *state)
        else:
            low, high = setting.bounds(point)
            move, *state = self.step(gradient * (high - low), *state)
            move = move * (high - low)
        return (setting.project(point + move), *state)


def utility_and_gradient(
    mechanism: Mechanism, values: Float[Tensor, "*b n c"], misreport: Float[Tensor, "*s n r"]
) -> tuple[Float[Tensor, "*s n"], Float[Tensor, "*s n r"]]:
    """Each deviator's utility and its gradient in his misreport, both detached. Cheapest inside `frozen`."""
    with torch.enable_grad():
        misreport = misreport.detach().requires_grad_()
        reached = deviation_utility(mechanism, values, misreport)
        (gradient,) = torch.autograd.grad(reached.sum(), misreport)
    return reached.detach(), gradient


def chosen(candidates: Float[Tensor, "*s k b n r"], which: Int[Tensor, "*s b n"]) -> Float[Tensor, "*s b n r"]:
    """For each profile and bidder the candidate that `which` numbers."""
    index = which[..., None, :, :, None].expand_as(candidates[..., :1, :, :, :])
    return candidates.gather(-4, index).squeeze(-4)


def points_out(
    point: Float[Tensor, "*s m"], slope: Float[Tensor, "*s m"], low: Tensor, high: Tensor
) -> Bool[Tensor, "*s m"]:
    """Where a point is at a bound and the slope points out of the box."""
    return ((point <= low) & (slope < 0)) | ((point >= high) & (slope > 0))


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Parameters need no gradient inside, which saves a third of a backward pass to the inputs."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def gradient_at_truth(
    setting: Setting, values: Float[Tensor, "*b n c"], truthful: Outcome, differentiable: bool = False
) -> Float[Tensor, "*b n r"]:
    """Each bidder's gradient of his utility in his own report, at the truth; detached unless `differentiable`.

    `truthful` is the outcome at `values` with its graph, and `values` requires a gradient: all deviations at the truth
    are the same profile, so that no further evaluation of the mechanism is needed. The graph is kept.
    """
    honest = utility(values.detach(), truthful)
    own = []
    for bidder in range(values.shape[-2]):
        (gradient,) = torch.autograd.grad(
            honest[..., bidder].sum(), values, retain_graph=True, create_graph=differentiable
        )
        own.append(gradient[..., bidder, :])
    return setting.reports(torch.stack(own, -2))
