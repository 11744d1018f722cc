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
    TAILS,
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

ORDERS = (16, 24)
"""Of two Gauss-Legendre rules that must agree ..."""

AGREEMENT = 1e-8
"""... to this share of the integral."""

HALVED = 24
"""Times that the largest difference of two values, and the chance of a value next to low, are halved for edges."""

CHUNK = 512
"""Integrals that are done at once."""

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

    D_i is how much more bidder i values item 1 than item 2: of two that want it, the keener pays the other's D. None
    for discrete values, and where Gauss-Legendre of two orders does not agree to `AGREEMENT`.
    """
    if any(has_atoms(law) for row in rows for law in row):
        return None
    edges = _gaps(rows)

    def integral(order: int) -> float:
        nodes, weights = gauss_legendre(edges, order)
        pairs = [pair for one, two in rows for pair in ((one, two), (two, one))]
        chance = {pair: _exceeds(*pair, nodes, order) for pair in dict.fromkeys(pairs)}
        a, b, c, d = (chance[pair] for pair in pairs)
        return float((weights * (a * c + b * d)).sum())

    coarse, fine = (integral(order) for order in ORDERS)
    return fine if abs(fine - coarse) <= AGREEMENT * fine else None


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


def _gaps(rows: Sequence[Sequence[Law]]) -> Float[Tensor, "k"]:
    """Edges from 0 to the largest difference of a bidder's values: of kinks, of quantiles, and ever closer to 0."""
    tails = torch.tensor([*TAILS, *(1 - tail for tail in TAILS)], dtype=torch.float64)
    gaps = [torch.zeros(1, dtype=torch.float64)]
    for one, other in rows:
        ends = (torch.tensor(ends_and_kinks(law), dtype=torch.float64) for law in (one, other))
        gaps.append(torch.cartesian_prod(*ends).diff().flatten().abs())
        high, low = one.quantile(tails), other.quantile(tails)
        gaps += [(high - low.flip(0)).abs(), (high - low).abs()]
    largest = max(float(gap.max()) for gap in gaps)
    edges: Tensor = torch.cat([*gaps, largest * 2.0 ** -torch.arange(1, HALVED, dtype=torch.float64)]).unique()
    return edges


def _exceeds(one: Law, other: Law, by: Float[Tensor, "t"], order: int) -> Float[Tensor, "t"]:
    """P(one > other + t), by quadrature over the other."""
    halved = other.quantile(2.0 ** -torch.arange(1, HALVED, dtype=torch.float64))  # densities may be infinite at low
    own, shifted = torch.cat([smooth_pieces([other]), halved]), smooth_pieces([one])
    found = []
    for some in by.split(CHUNK):
        edges = torch.cat([own.expand(len(some), -1), shifted - some[:, None]], 1).clamp(other.low, other.high)
        nodes, weights = gauss_legendre(edges.sort(1).values, order)
        density = other.density(nodes)
        assert density is not None
        found.append((weights * density * (1 - one.cdf(nodes + some[:, None]))).sum(1))
    return torch.cat(found)
