"""Local searches of the attack: projected BFGS where gradients lead, a compass search where they do not.

Both work in coordinates where the bidder's box of values is the unit cube, on a flat list of starts, and drop a start
as soon as it has converged. Neither ever returns a worse report than it was given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from truthful.auditing.columns import Columns, join
from truthful.auditing.instances import Instances
from truthful.regret.ascent import points_out
from truthful.regret.quasi_newton import FIRST, LONGEST, STEPS, bfgs_update
from truthful.shapes import Bool, Float, Int

STEEP = 1e-2
"""A slope over the whole box above this share of the largest value is more than a maximum has."""
SCANNED = 33
"""Points of the grid with which a compass search scans one item."""
TOGETHER = 256
"""Starts of a compass search that are moved at once."""


@dataclass
class Points(Columns):
    """A list of reports, each for one instance."""

    instance: Int[Tensor, "r"]
    report: Float[Tensor, "r m"]
    utility: Float[Tensor, "r"]
    member: Int[Tensor, "r"]
    """Which member of the portfolio it comes from."""

    @property
    def found(self) -> tuple[Tensor, Tensor, Tensor]:
        """Everything but the instance."""
        return self.report, self.utility, self.member

    def part(self, rows: slice | Tensor) -> Points:
        """Some of a list that has one report an instance, for the same ones of the instances."""
        report, score, member = (tensor[rows] for tensor in self.found)
        return Points(torch.arange(len(score), device=score.device), report, score, member)


def scored(instances: Instances, points: Points) -> Points:
    """The same reports, scored by these instances in their precision."""
    report = points.report.to(instances.values)
    return Points(points.instance, report, instances.utility(points.instance, report), points.member)


def best_of(count: int, points: Points) -> Points:
    """The best point of each of `count` instances, in their order; the first of several equally good ones."""
    assert len(points), "every instance has a point"
    top = torch.full((count,), -torch.inf).to(points.utility)
    top = top.scatter_reduce(0, points.instance, points.utility, "amax")
    row = torch.arange(len(points), device=top.device)
    row = torch.where(points.utility == top[points.instance], row, len(points))
    first = torch.full((count,), len(points), device=top.device).scatter_reduce(0, points.instance, row, "amin")
    return points.take(first)


def resolution(points: Points) -> float:
    """The smallest gain worth looking for, as a share of the largest value: what the precision can tell apart."""
    return 2e-8 if points.utility.dtype == torch.float32 else 1e-10


def climb(instances: Instances, points: Points, iterations: int) -> tuple[Points, Bool[Tensor, "r"]]:
    """Projected BFGS, one dense inverse Hessian a start; 7 forward passes an iteration.

    Coordinates at a bound whose gradient points outwards are fixed. Five lengths of the quasi-Newton step are scored
    at once and the best is taken, so that utility never falls and nothing needs tuning.

    Returns:
        The points reached, and for each whether the end is sharp: utility still has a slope there (a kink, a jump), or
        it had none at the start (a step function).
    """
    report, value = points.report.clone(), points.utility.clone()
    sharp = torch.full((len(points),), not instances.has_gradient, device=report.device)
    if not len(points) or not instances.has_gradient:
        return points, sharp
    tolerance = resolution(points) * instances.scale
    lengths = torch.tensor(STEPS).to(report)
    rows = torch.arange(len(points), device=report.device)  # the starts that still move
    _, gradient = instances.utility_and_gradient(points.instance, report)
    gradient = gradient * instances.width[points.instance]
    first = FIRST / gradient.abs().amax(-1).clamp_min(1e-30)
    inverse = first[:, None, None] * torch.eye(report.shape[1]).to(report)
    fresh = torch.ones(len(points), dtype=torch.bool, device=report.device)  # has no curvature yet
    for _ in range(iterations):
        instance = points.instance[rows]
        here, reached = report[rows], value[rows]
        width = instances.width[instance]
        free = ~points_out(here, gradient, instances.low[instance], instances.high[instance])
        ascent = gradient * free
        direction = torch.einsum("rij,rj->ri", inverse, ascent) * free
        direction = direction * (LONGEST / direction.abs().amax(-1, keepdim=True).clamp_min(LONGEST))
        # a first step has no scale of its own: judge it by its slope over the whole box
        slope = ascent.abs().sum(-1)
        sharp[rows] = (slope > STEEP * instances.scale) | (fresh & (gradient == 0).all(-1))
        promised = torch.where(fresh, slope, (direction * ascent).sum(-1))
        moving = promised > tolerance
        if not bool(moving.all()):
            rows, instance, here, reached, width = (t[moving] for t in (rows, instance, here, reached, width))
            free, gradient, direction = free[moving], gradient[moving], direction[moving]
            inverse, fresh = inverse[moving], fresh[moving]
            if not len(rows):
                break
        k = len(rows)
        tried = here + lengths[:, None, None] * (direction * width)
        every = instance.repeat(len(STEPS))
        tried = instances.project(every, tried.flatten(0, 1))
        score, best = instances.utility(every, tried).view(-1, k).max(0)
        there = tried.view(len(STEPS), k, -1)[best, torch.arange(k, device=rows.device)]
        better = score > reached
        report[rows] = torch.where(better.unsqueeze(-1), there, here)
        value[rows] = torch.where(better, score, reached)
        # where no length helped the gradient stays as it is
        new = gradient.clone()
        if bool(better.any()):
            _, there_too = instances.utility_and_gradient(instance[better], there[better])
            new[better] = there_too * width[better]
        inverse, fresh = bfgs_update(inverse, fresh, (there - here) / width, (gradient - new) * free, better)
        gradient = new
    return Points(points.instance, report, value, points.member), sharp


def compass(
    instances: Instances, points: Points, rounds: int, directions: int, radius: float, smallest: float, seed: int
) -> Points:
    """Gradient-free: score reports at a radius in many directions, move to the best; where none is better, shrink.

    Directions are both ways along every item, all items at once, and quasi-random ones. Every tenth round also scans
    each item alone over the whole box, because the best reports of a mechanism with jumps differ item by item.

    Args:
        instances: what the points are for.
        points: starts.
        rounds: at most so many.
        directions: in a round, but at least four quasi-random ones.
        radius: of the first round, as a share of the box.
        smallest: a start ends when its radius is below this.
        seed: of the quasi-random directions.
    """
    if not len(points) or not rounds:
        return points
    if len(points) > TOGETHER:  # scans take memory
        parts = torch.arange(len(points), device=points.utility.device).split(TOGETHER)
        limits = (rounds, directions, radius, smallest, seed)
        return join(*(compass(instances, points.take(part), *limits) for part in parts))
    report, value = points.report.clone(), points.utility.clone()
    rows = torch.arange(len(points), device=report.device)
    radii = torch.full((len(points),), radius).to(report)
    m = report.shape[1]
    fixed = torch.cat([-torch.eye(m), torch.eye(m), -torch.ones(1, m), torch.ones(1, m)])
    drawn = SobolEngine(m, scramble=True, seed=seed).draw(rounds * max(4, directions - len(fixed)))
    patterns = torch.cat([fixed.expand(rounds, -1, -1), (2 * drawn - 1).view(rounds, -1, m)], 1).to(report)
    for k, pattern in enumerate(patterns):
        rows = rows[radii[rows] >= smallest]
        if not len(rows):
            break
        instance, here = points.instance[rows], report[rows]
        tried = here + pattern.unsqueeze(1) * (radii[rows].unsqueeze(-1) * instances.width[instance])
        if k % 10 == 0:
            tried = torch.cat([tried, _scans(instances, instance, here)])
        every = instance.repeat(len(tried))
        flat = instances.project(every, tried.flatten(0, 1))
        score, best = instances.utility(every, flat).view(len(tried), -1).max(0)
        there = flat.view(tried.shape)[best, torch.arange(len(rows), device=rows.device)]
        better = score > value[rows]
        report[rows] = torch.where(better.unsqueeze(-1), there, here)
        value[rows] = torch.where(better, score, value[rows])
        radii[rows] = torch.where(better, radii[rows], 0.6 * radii[rows])
    return Points(points.instance, report, value, points.member)


def _scans(instances: Instances, instance: Tensor, here: Float[Tensor, "r m"]) -> Float[Tensor, "s r m"]:
    """Reports that differ from `here` in one item: a grid over its interval, and below and above the true value."""
    width = instances.width[instance]
    steps = torch.linspace(0, 1, SCANNED).to(here).view(-1, 1, 1)
    closer = 0.5 ** torch.arange(2, SCANNED // 2 + 4).to(here).view(-1, 1, 1)
    true = instances.values[instance].unsqueeze(0)
    grid = torch.cat([instances.low[instance] + steps * width, true, true - closer * width, true + closer * width])
    m = here.shape[-1]
    tried = here.expand(m, len(grid), *here.shape).clone()
    for item in range(m):
        tried[item, :, :, item] = grid[..., item]
    return tried.flatten(0, 1)
