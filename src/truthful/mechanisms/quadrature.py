"""Expected revenue of truthful bids, where values are independent: formulas, quadratures and sums over atoms."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from truthful.auction import revenue
from truthful.laws import Law
from truthful.laws.quadrature import (
    atoms,
    cdf_below,
    ends_and_kinks,
    gauss_legendre,
    has_atoms,
    smooth_pieces,
)
from truthful.mechanisms.base import Mechanism
from truthful.settings.base import Setting
from truthful.shapes import Float

PROFILES = 2**20
"""The most profiles of discrete values that are summed over."""

ITEMS = 6
"""The most items for which the choices of bidders with unit demand are integrated over all sets of what is left."""

Columns = list[tuple[Law, ...]]


def laws_of_items(mechanism: Mechanism, setting: Setting) -> Columns | None:
    """For each item the laws of the bidders' values, where those are independent; None where they are not known.

    Raises ValueError if mechanism and setting are not for the same auction.
    """
    _check_fit(mechanism, setting)
    if setting.laws is None or not (setting.independent or setting.n_bidders == 1):
        return None
    return list(zip(*setting.laws, strict=True))


def over_items(columns: Columns, earned: Callable[[int, tuple[Law, ...]], float]) -> float:
    """The sum over items of what each earns from its laws."""
    return math.fsum(earned(item, laws) for item, laws in enumerate(columns))


def first_price_revenue(laws: Sequence[Law], reserve: float) -> float:
    """E of the highest value if it reaches the reserve: r P(highest >= r) + integral over t > r of P(highest > t)."""
    nodes, weights = gauss_legendre(_from(reserve, laws))
    none_above = math.prod(law.cdf(nodes) for law in laws)
    return reserve * _sold(laws, reserve) + float((weights * (1 - none_above)).sum())


def second_price_revenue(laws: Sequence[Law], reserve: float) -> float:
    """E of the larger of reserve and second value: r P(highest >= r) + integral over t > r of P(second > t)."""
    nodes, weights = gauss_legendre(_from(reserve, laws))
    below = torch.stack([law.cdf(nodes) for law in laws])
    one_above = [(1 - below[k]) * torch.cat([below[:k], below[k + 1 :]]).prod(0) for k in range(len(laws))]
    two_above = 1 - below.prod(0) - torch.stack(one_above).sum(0)
    return reserve * _sold(laws, reserve) + float((weights * two_above).sum())


def posted_price_revenue(laws: Sequence[Law], price: float) -> float:
    """Price times the chance that anyone pays it."""
    return price * _sold(laws, price)


def sequential_revenue(rows: Sequence[Sequence[Law]], prices: Sequence[float]) -> float | None:
    """Bidders with unit demand, one after the other, take the best of what is left at its price.

    By dynamic programming over the set of items that are left. None for discrete values or more than `ITEMS` items.
    """
    m = len(prices)
    if m > ITEMS or any(has_atoms(law) for row in rows for law in row):
        return None
    left = {frozenset(range(m)): 1.0}
    earned = 0.0
    for row in rows:
        after: dict[frozenset[int], float] = {}
        chances = _choices(row, prices)
        for items, chance in left.items():
            taken = {item: chance * chances(item, items) for item in items}
            after[items] = after.get(items, 0.0) + chance - sum(taken.values())
            for item, share in taken.items():
                after[items - {item}] = after.get(items - {item}, 0.0) + share
                earned += share * prices[item]
        left = after
    return earned


def two_by_two_matching_revenue(rows: Sequence[Sequence[Law]]) -> float | None:
    """VCG with two bidders of unit demand for two items: E min(|D1|, |D2|) where both prefer the same item.

    D_i is how much more bidder i values item 1 than item 2: of two that want it, the keener pays the other's D.
    """
    if any(has_atoms(law) for row in rows for law in row):
        return None
    gaps = [abs(a - b) for one, two in rows for a in ends_and_kinks(one) for b in ends_and_kinks(two)]
    nodes, weights = gauss_legendre(torch.tensor([0.0, *gaps], dtype=torch.float64).unique())
    (one_first, one_second), (two_first, two_second) = (
        (_exceeds(first, second, nodes), _exceeds(second, first, nodes)) for first, second in rows
    )
    return float((weights * (one_first * two_first + one_second * two_second)).sum())


@torch.no_grad()
def revenue_over_atoms(mechanism: Mechanism, setting: Setting) -> float | None:
    """Revenue summed over all profiles of independent discrete values; None for other values or too many profiles."""
    _check_fit(mechanism, setting)
    if setting.laws is None or not setting.independent:
        return None
    laws = list(itertools.chain(*setting.laws))
    if not all(map(has_atoms, laws)):
        return None
    values, chances = zip(*map(atoms, laws), strict=True)
    if math.prod(map(len, values)) > PROFILES:
        return None
    profiles = torch.cartesian_prod(*values).reshape(-1, setting.n_bidders, setting.n_items)
    chance = torch.cartesian_prod(*chances).reshape(len(profiles), -1).prod(-1)
    return float((chance * revenue(copy.deepcopy(mechanism).cpu().double()(profiles))).sum())


def _check_fit(mechanism: Mechanism, setting: Setting) -> None:
    mine, theirs = ((one.n_bidders, one.n_items, one.demand) for one in (mechanism, setting))
    if mine != theirs:
        raise ValueError(f"the mechanism is for (bidders, items, demand) {mine}, the setting has {theirs}")


def _sold(laws: Sequence[Law], price: float) -> float:
    """The chance that a value reaches the price."""
    at = torch.tensor(price, dtype=torch.float64)
    return 1 - math.prod(float(cdf_below(law, at)) for law in laws)


def _from(start: float, laws: Sequence[Law]) -> Float[Tensor, "k"]:
    """Edges of an integral from `start` to where no law has values any more."""
    edges = smooth_pieces(laws)
    return torch.cat([torch.tensor([start], dtype=torch.float64), edges[edges > start]])


def _choices(row: Sequence[Law], prices: Sequence[float]) -> Callable[[int, frozenset[int]], float]:
    """The chance that an item is the best one of a set for a bidder, at its price: integrated over his utility."""
    edges = [smooth_pieces([law]) - price for law, price in zip(row, prices, strict=True)]
    nodes, weights = gauss_legendre(torch.cat([torch.zeros(1), *edges]).clamp_min(0).unique())
    below = [law.cdf(nodes + price) for law, price in zip(row, prices, strict=True)]

    def chance(item: int, items: frozenset[int]) -> float:
        density = row[item].density(nodes + prices[item])
        assert density is not None
        others = [below[k] for k in items if k != item]
        return float((weights * torch.stack([density, *others]).prod(0)).sum())

    return chance


def _exceeds(one: Law, other: Law, by: Float[Tensor, "t"]) -> Float[Tensor, "t"]:
    """P(one > other + t), by quadrature over the other."""
    own, shifted = (torch.tensor(ends_and_kinks(law), dtype=torch.float64) for law in (other, one))
    edges = torch.cat([own.expand(len(by), -1), shifted - by[:, None]], 1).clamp(other.low, other.high).sort(1).values
    nodes, weights = gauss_legendre(edges)
    density = other.density(nodes)
    assert density is not None
    return (weights * density * (1 - one.cdf(nodes + by[:, None]))).sum(1)
