"""Boosts and weights of an affine maximiser that earn most on a sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.mechanisms.cma_es import maximise
from truthful.settings.base import Setting
from truthful.shapes import Float, Int
from truthful.streams import Stream, generator

PARAMETERS = 40
"""The most that are searched for at once."""

CHUNK = 2**23
"""Welfares that are held at once."""


@dataclass(frozen=True)
class Tables:
    """Of each group of allocations with one boost, for the sampled profiles: what decides and what is paid."""

    best: Float[Tensor, "g b"]
    """The largest weighted welfare in the group ..."""
    own: Float[Tensor, "n g b"]
    """... each bidder's part of it, ..."""
    without: Float[Tensor, "n g b"]
    """... and the largest weighted welfare of the others."""

    def revenue(self, boosts: Float[Tensor, "g"], weights: Float[Tensor, "n"]) -> float:
        """Mean revenue of the sample."""
        boosts = boosts.to(self.best)[:, None]
        most, group = (self.best + boosts).max(0)
        total = 0.0
        for own, without, weight in zip(self.own, self.without, weights.tolist(), strict=True):
            cost = (without + boosts).amax(0) - (most - own.gather(0, group[None]).squeeze(0))
            total += float(cost.mean(dtype=torch.float64)) / weight
        return total


def tabulate(
    values: Float[Tensor, "b n m"],
    allocations: Float[Tensor, "k n m"],
    group: Int[Tensor, "k"],
    weights: Float[Tensor, "n"],
) -> Tables:
    """Reduce all allocations to one a group."""
    allocations, weighted = allocations.to(values), values * weights.to(values)[:, None]
    members = [(group == g).nonzero().squeeze(1) for g in range(int(group.max()) + 1)]
    best, own, without = [], [], []
    for part in weighted.split(max(1, CHUNK // len(allocations))):
        welfare = part.flatten(-2) @ allocations.flatten(-2).T
        tops = [welfare[:, rows].max(-1) for rows in members]
        best.append(torch.stack([top.values for top in tops]))
        chosen = torch.stack([rows[top.indices] for rows, top in zip(members, tops, strict=True)], -1)
        held = [part[:, i] @ allocations[:, i].T for i in range(part.shape[1])]
        own.append(torch.stack([one.gather(-1, chosen).T for one in held]))
        others = [[(welfare[:, rows] - one[:, rows]).amax(-1) for rows in members] for one in held]
        without.append(torch.stack([torch.stack(row) for row in others]))
    return Tables(*(torch.cat(parts, -1) for parts in (best, own, without)))


def fit_boosts(
    setting: Setting,
    allocations: Float[Tensor, "k n m"],
    group: Int[Tensor, "k"],
    design: Float[Tensor, "k p"],
    weights: Float[Tensor, "n"] | None,
    samples: int,
    restarts: int,
    seed: int,
) -> tuple[Float[Tensor, "p"], Float[Tensor, "n"]]:
    """The parameters and weights that CMA-ES finds, from VCG with a reserve of the mean value.

    There are local optima: the best of several searches on a tenth of the profiles is refined on all of them.

    Args:
        setting: where the profiles come from: its training stream.
        allocations: all of them.
        group: which allocations have the same boost whatever the parameters.
        design: boosts are design @ parameters.
        weights: null to search for them, too, unless bidders are exchangeable.
        samples: how many profiles.
        restarts: how many searches.
        seed: of the profiles and the searches.
    """
    for name, number in (("samples", samples), ("restarts", restarts)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {number!r}")
    n, p = setting.n_bidders, design.shape[1]
    free = 0 if weights is not None or setting.exchangeable_bidders else n - 1
    if p + free > PARAMETERS:
        raise ValueError(
            f"{p} boosts and {free} weights are too many to be fitted (up to {PARAMETERS}): this setting has too few "
            "symmetries; give boosts"
        )
    values = setting.part(Stream.TRAIN).sample(samples, generator(seed, Stream.TRAIN))
    given = torch.ones(n, dtype=torch.float64) if weights is None else weights
    representatives = torch.tensor([int((group == g).nonzero()[0]) for g in range(int(group.max()) + 1)])
    reduced = design[representatives]
    prices = values.double().mean((0, 1))
    kept = (allocations.sum(1) * prices).sum(-1).max() - (allocations.sum(1) * prices).sum(-1)
    start = torch.linalg.lstsq(design, kept[:, None], driver="gelsd").solution.squeeze(1)
    few = values[: max(1, samples // 10)]

    def split(point: Tensor) -> tuple[Tensor, Tensor]:
        tilted = torch.cat([torch.ones(1, dtype=torch.float64), point[p:].exp()]) if free else given
        return scale * point[:p], tilted

    def earner(values: Tensor) -> Callable[[Tensor], float]:
        tables = None if free else tabulate(values, allocations, group, given)

        def earned(point: Tensor) -> float:
            boosts, tilted = split(point)
            table = tabulate(values, allocations, group, tilted) if tables is None else tables
            return table.revenue(reduced @ boosts, tilted)

        return earned

    scale = float(prices.mean())
    point = torch.cat([start / scale, torch.zeros(free, dtype=torch.float64)])
    roughly, exactly = earner(few), earner(values)
    found = [maximise(roughly, point, 0.3, generator(seed, Stream.INIT, k)) for k in range(restarts)]
    return split(maximise(exactly, max(found, key=exactly), 0.05, generator(seed, Stream.INIT, restarts)))
