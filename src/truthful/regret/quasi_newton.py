"""Projected BFGS on misreports: few, dear, precise iterations."""

from __future__ import annotations

import torch
from torch import Tensor

from truthful.auction import deviation_utility, utility
from truthful.mechanisms.base import Mechanism
from truthful.regret.ascent import chosen, frozen, points_out, utility_and_gradient
from truthful.regret.base import Found, Run, Search, directly
from truthful.settings.base import Setting
from truthful.shapes import Bool, Float

STEPS = (2.0, 1.0, 0.4, 0.1, 0.02)
"""Step lengths that a line search tries at once, as multiples of the quasi-Newton step."""
LONGEST = 0.3
"""Longest quasi-Newton step, in the max norm, as a share of the box."""
FIRST = 0.05
"""Length of the first step."""


class QuasiNewton(Search):
    """Projected BFGS, one dense inverse Hessian a misreport; 7 forward passes an iteration, nothing to tune.

    Works in coordinates where the support's box is the unit cube. Items at a bound whose gradient points outwards are
    fixed. Five lengths of the quasi-Newton step are scored at once and the best is taken, so that utility never falls.

    Args:
        iterations: number of line searches.
    """

    varies = True

    def __init__(self, iterations: int) -> None:
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
            raise ValueError(f"a search needs a whole number of iterations of at least 1, got {iterations!r}")
        self.iterations = iterations
        self.steps = 4 * iterations  # what 7 forward passes are in gradients, each a pass forward and one back

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
        """Where it ends, which is the best it has seen."""
        state = run(self._begin, mechanism, setting, values, start)
        for _ in range(self.iterations):
            state = run(self._iterate, mechanism, setting, values, *state)
        point: Tensor = state[0]
        return point

    def __call__(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        start: Float[Tensor, "*s n r"],
        drawn: tuple[Tensor, ...] = (),
    ) -> Found:
        """The best misreport seen, of the end and the truth."""
        last = self.climb(mechanism, setting, values, start)
        with torch.no_grad():
            gain = deviation_utility(mechanism, values, last) - utility(values, mechanism(values))
        truth = setting.reports(values)
        return Found(torch.where(gain.unsqueeze(-1) > 0, last, truth), gain.clamp_min(0), last)

    def _begin(self, mechanism: Mechanism, setting: Setting, values: Tensor, start: Tensor) -> tuple[Tensor, ...]:
        """Point, utility, gradient, inverse Hessian, and whether there is no curvature in it yet."""
        low, high = setting.bounds(values)
        with frozen(mechanism):
            reached, gradient = utility_and_gradient(mechanism, values, start)
        gradient = gradient * (high - low)
        first = FIRST / gradient.abs().amax(-1).clamp_min(1e-30)
        inverse = first[..., None, None] * torch.eye(start.shape[-1], dtype=start.dtype, device=start.device)
        return start.detach(), reached, gradient, inverse, torch.ones_like(reached, dtype=torch.bool)

    @torch.no_grad()
    def _iterate(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Tensor,
        point: Float[Tensor, "*s n r"],
        reached: Float[Tensor, "*s n"],
        gradient: Float[Tensor, "*s n r"],
        inverse: Float[Tensor, "*s n r r"],
        fresh: Bool[Tensor, "*s n"],
    ) -> tuple[Tensor, ...]:
        """One line search."""
        low, high = setting.bounds(point)
        free = ~points_out(point, gradient, low, high)
        direction = (inverse @ (gradient * free).unsqueeze(-1)).squeeze(-1) * free
        direction = direction * (LONGEST / direction.abs().amax(-1, keepdim=True).clamp_min(LONGEST))
        lengths = point.new_tensor(STEPS).view(-1, 1, 1, 1)
        tried = setting.project(point.unsqueeze(-4) + lengths * (direction * (high - low)).unsqueeze(-4))
        with frozen(mechanism):
            scores = deviation_utility(mechanism, values.unsqueeze(-4), tried)
            score, best = scores.max(-3)
            better = score > reached
            there = torch.where(better.unsqueeze(-1), chosen(tried, best), point)
            _, new = utility_and_gradient(mechanism, values, there)
        new = new * (high - low)
        inverse, fresh = bfgs_update(inverse, fresh, (there - point) / (high - low), (gradient - new) * free, better)
        return there, torch.maximum(score, reached), new, inverse, fresh


def bfgs_update(
    inverse: Float[Tensor, "*s m m"],
    fresh: Bool[Tensor, "*s"],
    step: Float[Tensor, "*s m"],
    change: Float[Tensor, "*s m"],
    better: Bool[Tensor, "*s"],
) -> tuple[Float[Tensor, "*s m m"], Bool[Tensor, "*s"]]:
    """BFGS update of the inverse Hessian of -utility; a failed line search shortens the next step instead.

    Args:
        inverse: the inverse Hessian so far.
        fresh: whether it has no curvature in it yet.
        step: the move.
        change: of the gradient of -utility over it.
        better: whether it was an improvement.
    """
    curvature = (step * change).sum(-1)
    size = (change * change).sum(-1)
    usable = better & (curvature > 1e-10 * size.sqrt() * step.norm(dim=-1)) & (curvature > 0)
    eye = torch.eye(step.shape[-1], dtype=step.dtype, device=step.device)
    first = (curvature / size.clamp_min(1e-30))[..., None, None] * eye
    base = torch.where(fresh[..., None, None], first, inverse)
    ratio = torch.where(usable, 1 / curvature.clamp_min(1e-30), torch.zeros_like(curvature))[..., None, None]
    left = eye - ratio * step[..., :, None] * change[..., None, :]
    updated = left @ base @ left.transpose(-1, -2) + ratio * step[..., :, None] * step[..., None, :]
    inverse = torch.where(usable[..., None, None], updated, inverse)
    fresh = fresh & ~usable
    return torch.where((~better)[..., None, None], 0.1 * inverse, inverse), fresh
