"""The straight-jacket auction: one bidder, m items, additive, i.i.d. U[0, 1]: its prices, and what it earns, exactly.

Every set of k items costs p_k. Giannakopoulos and Koutsoupias ("Duality and optimality of auctions for uniform
distributions", 2018) choose p_r for r = 1, ..., m such that the body {v in [0, 1]^r : the k largest values sum to at
most p_k, for all k <= r} has volume 1 - r/(m + 1), and prove that no auction earns more for m <= 6.

Such bodies are polymatroids: v(J) <= p_|J| for every set J of items. So their volumes follow from those of their faces,
v(J) = p_|J|, each of which is the product of a permutohedron and a smaller body. All terms are positive, so nothing
cancels and volumes are exact up to rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache

from truthful.errors import whole
from truthful.laws.cumulative import gauss_legendre_rule


def polymatroid_volume(prices: Sequence[float]) -> float:
    """Volume of {v >= 0 : v(J) <= prices[|J| - 1] for every set J of items}.

    Args:
        prices: p_1, ..., p_r for sets of 1, ..., r items; concave in their number, from 0 for no item.
    """
    sums = [0.0, *_least(prices)]

    @cache
    def permutohedron(first: int, last: int) -> float:
        """Lattice volume of the hull of the permutations of the steps first, ..., last - 1 of `sums`."""
        size = last - first
        if size == 1:
            return 1.0
        mean = (sums[last] - sums[first]) / size
        return sum(
            math.comb(size, k) * (sums[first + k] - sums[first] - k * mean)  # distance of the face from the centre
            * permutohedron(first, first + k) * permutohedron(first + k, last)
            for k in range(1, size)
        ) / (size - 1)  # fmt: skip

    @cache
    def body(first: int) -> float:
        """Volume of the body of the steps from `first` on."""
        size = len(sums) - 1 - first
        if size == 0:
            return 1.0
        return sum(
            math.comb(size, k) * (sums[first + k] - sums[first]) * permutohedron(first, first + k) * body(first + k)
            for k in range(1, size + 1)
        ) / size  # fmt: skip

    return body(0)


@cache
def straight_jacket_prices(m: int) -> tuple[float, ...]:
    """p_1, ..., p_m for values in [0, 1], to double precision.

    From m = 5 on the prices of the largest sets fall: there p_4 = 2.0005 and p_5 = 1.9856, so nobody buys exactly four.
    They are defined, but not known to be optimal, beyond m = 6.

    Raises:
        ValueError: m is no whole number of at least 1.
    """
    whole("the number of items", m, 1)
    prices: list[float] = []
    for r in range(1, m + 1):
        target = 1 - r / (m + 1)
        low, high = 0.0, 2 * prices[-1] - (prices[-2] if r > 2 else 0.0) if prices else 1.0  # else not concave
        assert polymatroid_volume([*prices, high]) >= target
        for _ in range(60):  # the volume increases with the price
            middle = (low + high) / 2
            below = polymatroid_volume([*prices, middle]) < target
            low, high = (middle, high) if below else (low, middle)
        prices.append((low + high) / 2)
    return tuple(prices)


@cache
def straight_jacket_revenue(m: int) -> float:
    """Expected revenue of the straight-jacket auction for m i.i.d. U[0, 1] values, up to rounding.

    Revenue is E[u'(v) v - u(v)] with the bidder's utility u: by the divergence theorem m times the mean of u over a
    face v_j = 1, less (m + 1) times its mean over the cube. Both means are integrals of P(u > t), whose complement is
    the volume of a polymatroid: between the points where t frees a set of another size, a polynomial in t.
    """
    prices = _least(straight_jacket_prices(m))
    breaks = [k - price for k, price in enumerate(prices, 1)]

    def above(t: float) -> float:
        """P(u > t)."""
        return 1 - polymatroid_volume([min(float(k), price + t) for k, price in enumerate(prices, 1)])

    def above_on_face(t: float) -> float:
        """The same where the first value is 1, for t of at least 1 - p_1, the least utility there."""
        return 1 - polymatroid_volume([min(float(k), price + t - 1) for k, price in enumerate(prices[1:], 1)])

    face = 1 - prices[0] + _integral(above_on_face, breaks, m - 1)
    return m * face - (m + 1) * _integral(above, [0.0, *breaks], m)


def _least(prices: Sequence[float]) -> list[float]:
    """What a set of each size costs where larger ones may be bought for less."""
    return [min(prices[k:]) for k in range(len(prices))]


def _integral(function: Callable[[float], float], breaks: Sequence[float], degree: int) -> float:
    """Of a function that is a polynomial of this degree between breaks, from the first to the last of them."""
    nodes, weights = (part.tolist() for part in gauss_legendre_rule(degree // 2 + 1))
    return math.fsum(
        (b - a) * weight * function(a + (b - a) * node)
        for a, b in itertools.pairwise(sorted(breaks))
        for node, weight in zip(nodes, weights, strict=True)
    )
