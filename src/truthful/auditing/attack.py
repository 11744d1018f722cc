"""The attack: a portfolio of searches, none of which is relied on alone; the best report that any of them saw.

The members differ in where they start. Points (quasi-random over the whole box, near the truth at all scales, along
structured lines) are scored without gradients, because their job is to find basins; the best of them, kept apart from
each other, are ascended from, as are the truth and a few starts that nobody scored. Then the most profitable reports
of one instance are tried on all others. Every draw is a function of the seed and of the instance's values, so that
neither the order of the instances nor the size of a batch matters.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from truthful.auditing.climb import Points, best_of, climb, compass
from truthful.auditing.columns import join
from truthful.auditing.instances import Instances
from truthful.auditing.tiers import Portfolio
from truthful.shapes import Float, Int

MEMBERS = ("truth", "sobol", "near", "line", "random", "pool")
"""Where a search started, by index."""
TRUTH, SOBOL, NEAR, LINE, RANDOM, POOL = range(len(MEMBERS))

APART = 0.1
"""Scored starts of an instance are at least this far apart, as a share of the box, in the max norm ..."""
SAME = 0.01
"""... and of ascents that came closer than this only the best goes on."""
SHADES = (0.5, 0.7, 0.8, 0.9, 0.95, 1.05)
"""Structured lines: these multiples of the truth, for all items at once and for each item alone ..."""
MOST_SINGLE = 5
"""... of at most so many items."""
RANKED = 64
"""The pool is chosen, apart from each other, among so many times as many of the best reports of a bidder."""
FREE_DIRECTIONS = 16
"""Directions of a compass search that stands in for ascents where a mechanism has no gradient."""


def start_at_truth(instances: Instances, portfolio: Portfolio) -> Points:
    """The truth, scored, and ascended from."""
    return _ascend(instances, truth(instances), portfolio.first_rung + portfolio.second_rung)


def truth(instances: Instances) -> Points:
    """The truth, scored."""
    everyone = instances.everyone
    score = instances.utility(everyone, instances.values)
    return Points(everyone, instances.values, score, torch.full_like(everyone, TRUTH))


def search(instances: Instances, portfolio: Portfolio, seed: int) -> Points:
    """Score points, ascend from the best of them in two rungs; the best report of every instance."""
    m = instances.values.shape[-1]
    drawn = SobolEngine(m + 1, scramble=True, seed=seed).draw(portfolio.sobol_points + portfolio.near_points)
    drawn = drawn.to(instances.values)
    far, near = drawn[: portfolio.sobol_points, :m], drawn[portfolio.sobol_points :]
    true = instances.unit(instances.values)
    radius = 10 ** (-3 + 2.7 * near[:, m:])
    scored = [
        _score(instances, _shift(instances, far), SOBOL),
        _score(instances, true + (radius * (2 * near[:, :m] - 1)).unsqueeze(1), NEAR),
        _score(instances, _lines(instances), LINE),
    ]
    starts = _best_apart(instances, join(*scored), portfolio.scored_starts, APART)
    unscored = SobolEngine(m, scramble=True, seed=seed + 1).draw(portfolio.random_starts).to(drawn)
    starts = join(starts, _score(instances, _shift(instances, unscored), RANDOM))
    first = _ascend(instances, starts, portfolio.first_rung)
    second = _ascend(instances, _best_apart(instances, first, portfolio.kept, SAME), portfolio.second_rung)
    return best_of(len(instances), join(first, second))


def best_reports(
    instances: Instances, found: Points, gain: Float[Tensor, "k"], size: int
) -> tuple[Float[Tensor, "n p m"], Float[Tensor, "n p m"]]:
    """The pool: the `size` most profitable distinct reports of each bidder, and their offsets from the truth.

    In unit-box coordinates. Where a bidder has fewer the best is repeated.
    """
    report, true = instances.unit(found.report), instances.unit(instances.values)
    chosen = []
    for bidder in range(instances.setting.n_bidders):
        own = (instances.bidder == bidder).nonzero().squeeze(1)
        ranked = own[gain[own].argsort(descending=True, stable=True)[: RANKED * size]]
        kept = _apart(report[ranked], size)
        chosen.append(ranked[torch.cat([kept, kept[:1].expand(size - len(kept))])])
    index = torch.stack(chosen)
    return report[index], (report - true)[index]


def _apart(points: Float[Tensor, "r m"], size: int) -> Int[Tensor, "s"]:
    """Indices of at most `size` points, the earlier the better, none within APART of an earlier one."""
    left = torch.ones(len(points), dtype=torch.bool, device=points.device)
    kept: list[int] = []
    while len(kept) < size and bool(left.any()):
        first = int(left.int().argmax())
        kept.append(first)
        left &= (points - points[first]).abs().amax(-1) > APART
    return torch.tensor(kept, device=points.device)


def try_pool(instances: Instances, found: Points, reports: Tensor, offsets: Tensor, portfolio: Portfolio) -> Points:
    """Try a pool on every instance, ascend from the best; the best report of every instance, old or new."""
    true = instances.unit(instances.values)
    tried = torch.cat([reports[instances.bidder], true.unsqueeze(1) + offsets[instances.bidder]], 1)
    scored = _score(instances, tried.transpose(0, 1), POOL)
    known = found.report.repeat(len(scored) // len(found), 1)
    width = instances.width[scored.instance]
    elsewhere = ((scored.report - known) / width).abs().amax(-1) > SAME
    scored.utility = torch.where(elsewhere, scored.utility, -torch.inf)
    starts = _best_apart(instances, scored, portfolio.pooled_starts, APART)
    return best_of(len(instances), join(found, _ascend(instances, starts, portfolio.second_rung)))


def polish(instances: Instances, found: Points, portfolio: Portfolio, seed: int) -> tuple[Points, Points]:
    """A last ascent, then a gradient-free search where that has a sharp end (a kink, a jump, no slope at all).

    Returns:
        The points after the ascent, and after the gradient-free search.
    """
    smooth, sharp = climb(instances, found, portfolio.last_rung)
    rest = smooth.take(sharp)
    further = compass(
        instances, rest, portfolio.compass_rounds, portfolio.compass_directions, radius=0.5, smallest=1e-9, seed=seed
    )
    return smooth, best_of(len(instances), join(smooth, further))


def _ascend(instances: Instances, points: Points, iterations: int) -> Points:
    """Along gradients where the mechanism has them."""
    if instances.has_gradient:
        return climb(instances, points, iterations)[0]
    return compass(instances, points, 2 * iterations, FREE_DIRECTIONS, radius=0.1, smallest=1e-4, seed=0)


def _score(instances: Instances, unit: Float[Tensor, "p k m"], member: int) -> Points:
    """Project and score p reports for each instance, given in unit-box coordinates."""
    instance = instances.everyone.repeat(len(unit))
    report = instances.project(instance, (instances.low + instances.width * unit).flatten(0, 1))
    return Points(instance, report, instances.utility(instance, report), torch.full_like(instance, member))


def _shift(instances: Instances, unit: Float[Tensor, "p m"]) -> Float[Tensor, "p k m"]:
    """Points of the unit cube, rotated for each instance by an amount that is a function of its profile.

    So instances probe different points, and share what they find through the pool.
    """
    low, high = instances.setting.bounds(unit)
    amount = (997 * ((instances.setting.reports(instances.profiles) - low) / (high - low)).sum(-2)).frac()
    return (unit.unsqueeze(1) + amount).frac()


def _lines(instances: Instances) -> Float[Tensor, "p k m"]:
    m = instances.values.shape[-1]
    shades = torch.tensor(SHADES).to(instances.values)
    together = shades.unsqueeze(-1).expand(-1, m)
    factors = [together]
    if 1 < m <= MOST_SINGLE:
        single = torch.ones(len(SHADES), m, m).to(shades)
        single.diagonal(dim1=1, dim2=2).copy_(together)
        factors.append(single.flatten(0, 1))
    return instances.unit(torch.cat(factors).unsqueeze(1) * instances.values)


def _best_apart(instances: Instances, points: Points, count: int, apart: float) -> Points:
    """The best points of each instance, greedily, none within `apart` of a better one; at most `count` of each."""
    order = points.instance.argsort(stable=True)
    sizes = points.instance.bincount(minlength=len(instances))
    place = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes)[points.instance[order]]
    table = torch.full((len(instances), int(sizes.max())), -1, device=order.device)
    table[points.instance[order], place] = order  # k x (points an instance), -1 where there is none
    utility = torch.where(table < 0, -torch.inf, points.utility[table])
    unit = points.report[table] / instances.width.unsqueeze(1)
    chosen = []
    for _ in range(count):
        best = utility.argmax(1, keepdim=True)
        there = utility.gather(1, best).squeeze(1) > -torch.inf
        chosen.append(table.gather(1, best).squeeze(1)[there])
        distance = (unit - unit.gather(1, best.unsqueeze(-1).expand(-1, -1, unit.shape[-1]))).abs().amax(-1)
        utility = utility.masked_fill(distance <= apart, -torch.inf)
    return points.take(torch.cat(chosen))
