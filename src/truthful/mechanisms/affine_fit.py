"""Boosts and weights of an affine maximiser that earn most on a sample."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.errors import whole
from truthful.mechanisms.allocations import orbit
from truthful.mechanisms.choices import Choices
from truthful.settings.base import Setting
from truthful.shapes import Float, Int
from truthful.streams import Stream, generator

GROUPS = 256
"""The most groups of allocations with one boost."""
STEPS = 3000
"""Steps of a search by Adam, ..."""
BATCH = 2000
"""... each on so many profiles, ..."""
LENGTH = 0.02
"""... of a length that falls linearly from this share of the mean value (of 1, for the logarithm of a weight), ..."""
HOT, COLD = 0.4, 0.001
"""... at a temperature that falls geometrically, in mean values; the first search begins with the first of them."""
SHIFT = 0.02
"""Half the width of a central difference, as a share of the smallest weight."""
CHUNK = 2**20
"""Welfares that are tabulated at once."""


@dataclass(frozen=True)
class Tables:
    """Of each group of allocations with one boost, for sampled profiles: what decides and what is paid."""

    best: Float[Tensor, "g b"]
    """The largest weighted welfare in the group, ..."""
    value: Float[Tensor, "g b"]
    """... the sum of all values in the allocation that attains it, ..."""
    without: Float[Tensor, "n g b"]
    """... and the largest weighted welfare of the others than a bidder."""

    def revenue(self, boosts: Float[Tensor, "g"], weights: Float[Tensor, "n"], temperature: float) -> Float[Tensor, ""]:
        """Mean revenue, were each group to win with the chance softmax((welfare + boost) / temperature).

        Unlike that of the maximum it is smooth, and a boost too low for its group to win has a slope.
        """
        boosts = boosts.to(self.best)[:, None]
        score = self.best + boosts
        alone = ((self.without + boosts).amax(1) / weights.to(score)[:, None]).sum(0)
        paid = self.value - score * (1 / weights).sum().to(score)
        return (alone + ((score / temperature).softmax(0) * paid).sum(0)).mean()

    def part(self, batch: slice) -> Tables:
        """Some of the profiles."""
        return Tables(self.best[:, batch], self.value[:, batch], self.without[..., batch])


def tabulate(
    values: Float[Tensor, "b n m"], choices: Choices, group: Int[Tensor, "s"], weights: Float[Tensor, "n"]
) -> Tables:
    """Reduce all classes of allocations to one a group. Differentiable in the weights.

    The sum of the values in a maximal allocation is the derivative of its weighted welfare as all weights grow by the
    same. A central difference, which is exact for equal weights, smooths the jumps from one allocation to another.
    """
    weights = weights.to(values)
    shift = SHIFT * weights.detach().min()

    def largest(welfare: Float[Tensor, "s b"]) -> Float[Tensor, "g b"]:
        start = welfare.new_full((int(group.max()) + 1, welfare.shape[1]), -torch.inf)
        return start.scatter_reduce(0, group[:, None].expand_as(welfare), welfare, "amax")

    tables = []
    for part in values.split(max(1, CHUNK // len(group))):
        welfare, more, less = (
            choices.solve(part * tilted[:, None])[0] for tilted in (weights, weights + shift, weights - shift)
        )
        value = (largest(more) - largest(less)) / (2 * shift)
        without = torch.stack([largest(welfare[dropped]) for dropped in choices.dropped])
        tables.append((largest(welfare), value, without))
    return Tables(*(torch.cat(parts, -1) for parts in zip(*tables, strict=True)))


def fit_boosts(
    setting: Setting,
    choices: Choices,
    design: Float[Tensor, "s p"],
    weights: Float[Tensor, "n"] | None,
    samples: int,
    restarts: int,
    seed: int,
) -> tuple[Float[Tensor, "p"], Float[Tensor, "n"]]:
    """The parameters and weights that stochastic gradient ascent finds, from VCG with a reserve of the mean value.

    The temperature of `Tables.revenue` falls during a search. There are local optima: of several searches, which begin
    at different temperatures, the best one counts.

    Args:
        setting: where the profiles come from: its training stream.
        choices: all classes of allocations.
        design: their boosts are design @ parameters.
        weights: null to search for them, too, unless bidders are exchangeable.
        samples: how many profiles.
        restarts: how many searches.
        seed: of the profiles.
    """
    for name, number in (("samples", samples), ("restarts", restarts)):
        whole(name, number, 1)
    names = [orbit(owners, setting) for owners in choices.owners]
    distinct = list(dict.fromkeys(names))
    if len(distinct) > GROUPS:
        raise ValueError(
            f"{len(distinct)} boosts are too many to be fitted (up to {GROUPS}): this setting has too few symmetries; "
            "give boosts"
        )
    group = torch.tensor([distinct.index(name) for name in names])
    reduced = design[[names.index(name) for name in distinct]]
    free = weights is None and not setting.exchangeable_bidders
    given = torch.ones(setting.n_bidders, dtype=torch.float64) if weights is None else weights

    values = setting.part(Stream.TRAIN).sample(samples, generator(seed, Stream.TRAIN))
    prices = values.double().mean((0, 1)) * given.mean()
    scale = float(prices.mean())
    sold = torch.tensor([[owner > 0 for owner in owners] for owners in choices.owners]).double()
    start = torch.linalg.lstsq(design, -(sold @ prices)[:, None], driver="gelsd").solution.squeeze(1) / scale
    edges = torch.linspace(0, samples, max(1, samples // BATCH) + 1).long().tolist()
    batches = [slice(first, last) for first, last in itertools.pairwise(edges)]
    fixed = tabulate(values, choices, group, given)

    def earned(boosts: Tensor, tilts: Tensor, temperature: float, batch: slice) -> Tensor:
        tilted = given * (tilts - tilts.mean()).exp()
        tables = tabulate(values[batch], choices, group, tilted) if tilts.requires_grad else fixed.part(batch)
        return tables.revenue(scale * (reduced @ boosts), tilted, scale * temperature)

    def search(hot: float) -> tuple[float, Tensor, Tensor]:
        boosts, tilts = start.clone().requires_grad_(), torch.zeros(setting.n_bidders, dtype=torch.float64)
        adam = torch.optim.Adam([boosts, tilts], betas=(0.9, 0.99))
        for step in range(STEPS):
            tilts.requires_grad_(free and 2 * step >= STEPS)  # at high temperatures small weights would make it up
            adam.param_groups[0]["lr"] = LENGTH * (1 - step / STEPS)
            adam.zero_grad()
            temperature = hot * (COLD / hot) ** (step / STEPS)
            (-earned(boosts, tilts, temperature, batches[step % len(batches)])).backward()
            adam.step()
        with torch.no_grad():
            mean = float(torch.stack([earned(boosts, tilts, COLD, batch) for batch in batches]).mean())
            first = (tilts[0] - tilts.mean()).exp()  # a free weight of the first bidder is to be 1
            return mean, scale * boosts / first, given * (tilts - tilts[0]).exp()

    found = [search(HOT * (COLD / HOT) ** (k / restarts)) for k in range(restarts)]
    return max(found, key=lambda one: one[0])[1:]
