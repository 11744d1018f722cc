"""The dual inequality: virtual values from flows, and what they say of the revenue of every truthful auction.

docs/bounds.md derives it. For each bidder i and item j let A_ij be a function of the quantiles q in [0, 1]^(n m) of
all values, with A_ij = 0 where q_ij = 1, and w_ij = -dA_ij / dq_ij with sum_j w_ij = 1. Then for every DSIC and
individually rational auction

    revenue <= E[ max over feasible x of sum_ij Phi_ij x_ij ] + sum_ij E[ cap_ij max(0, -A_ij at q_ij = 0) ],
    Phi_ij = v_ij - A_ij / f_ij(v_ij),

f_ij the density of v_ij and cap_ij the largest utility that bidder i can have at (low_ij, v_i,-j). It holds for any
such A, so whatever minimises the right side need not be exact; and as the right side is convex in A, unbiased noise in
A can only raise its expectation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from truthful.settings import Setting
from truthful.shapes import Float


class NoBound(ValueError):
    """The inequality does not apply to a setting; the message says why."""


def check_applies(setting: Setting) -> None:
    """Raise NoBound unless values are independent, each has a density on an interval, and there are several items."""
    if setting.laws is None or not setting.independent:
        raise NoBound("the dual bound needs independent values")
    for row in setting.laws:
        for law in row:
            if not law.convex or law.density(torch.tensor([law.low])) is None:
                raise NoBound(f"the dual bound needs values with a density on an interval, got {law}")
    if setting.n_items < 2:
        raise NoBound("flows are for two items or more; with one, Myerson's optimum is known")


def items_to_compute(setting: Setting) -> range:
    """Items whose surplus has to be computed: under additive demand exchangeable items all have the same."""
    single = setting.demand == "additive" and setting.exchangeable_items
    return range(1 if single else setting.n_items)


def values_and_densities(
    setting: Setting, bidder: int, item: int, quantile: Float[Tensor, "*b"]
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """A bidder's value of an item at quantiles of its law, and the density there."""
    assert setting.laws is not None
    law = setting.laws[bidder][item]
    values = law.quantile(quantile)
    density = law.density(values)
    assert density is not None
    return values, density


def best_surplus(virtual: Sequence[Sequence[Float[Tensor, "*b"]]], demand: str) -> Float[Tensor, "*b"]:
    """The most that a feasible allocation gets of virtual values, given as a list for each bidder of one an item.

    Additive: each item to whoever has the largest positive virtual value. Unit demand: the best matching, by dynamic
    programming over the sets of items that the first bidders may use.
    """
    nothing = torch.zeros_like(virtual[0][0])
    if demand == "additive":
        surplus = nothing
        for column in zip(*virtual, strict=True):
            surplus = surplus + reduce(torch.maximum, column, nothing)
        return surplus
    best = [nothing] * 2 ** len(virtual[0])  # by set of items; a list, not a tensor, takes a quarter of the time
    for row in virtual:
        chosen = []
        for available, without in enumerate(best):
            got = without
            for j, value in enumerate(row):
                if available >> j & 1:
                    got = torch.maximum(got, best[available ^ (1 << j)] + value)
            chosen.append(got)
        best = chosen
    return best[-1]


def utility_cap(above: Sequence[Float[Tensor, "*b"]], demand: str) -> Float[Tensor, "*b"]:
    """The largest utility where one value is its lowest, from how far the others are above theirs.

    Utility is 0 at the lowest values of all (otherwise every price could rise by it) and rises by at most the
    allocation times the change of the values: by their sum under additive demand, by the largest under unit demand.
    """
    stacked = torch.stack(list(above))
    return stacked.sum(0) if demand == "additive" else stacked.amax(0)
