"""Optimal auctions that theorems give. They follow the laws of the values: other laws, no optimum.

All theorems are stated for one scale of values and used for all: revenue and prices scale with the values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

from truthful.laws import Discrete, Exponential, Law, Uniform
from truthful.settings.optimum import Menu, Optimum
from truthful.settings.straight_jacket import straight_jacket_prices, straight_jacket_revenue

QUADRATURE = 1e-8
"""Relative accuracy of Myerson's revenue where it is an integral."""
MEANS = 20
"""An exponential law cut off at so many means or more is taken for one that is not, at an error that is stated."""


@lru_cache(maxsize=256)
def independent_optimum(laws: tuple[tuple[Law, ...], ...], demand: str) -> Optimum | None:
    """The optimal auction for independent values with these laws, a row for each bidder; None where none is known."""
    n, m = len(laws), len(laws[0])
    if m == 1:
        return _one_item([row[0] for row in laws])
    if n == 1:
        return _additive(laws[0]) if demand == "additive" else _unit_demand(laws[0])
    if (n, m) == (2, 2) and demand == "additive":
        return _two_values(laws)
    return None


def simplex_optimum(n_bidders: int, n_items: int, high: float, demand: str) -> Optimum | None:
    """One additive bidder with values uniform on {v >= 0 : sum v <= high}: the bundle at high (m + 1)^(-1/m).

    The shares v/sum v are independent of the sum here. A seller who was told the shares would face one number, the sum,
    of the same law whatever they are, and could do no better than to post that price for everything. Haghpanah and
    Hartline 2015 prove it for shares that may even depend on the sum, in the right direction.
    """
    if n_bidders != 1 or demand != "additive":
        return None
    price = high * (n_items + 1) ** (-1 / n_items)
    menu: Menu = (((1.0,) * n_items, price),)
    return Optimum(price * n_items / (n_items + 1), "Haghpanah and Hartline 2015", "menu", menu)


def budgeted_optimum(value: Law, budget: Law) -> Optimum | None:
    """One bidder, one item, value U[0, h] and private budget U[0, k], independent; None for other laws.

    A truthful mechanism is a menu x(p) of which the bidder takes the best that he can pay for. It earns no less with
    the concave hull of x: then whoever would pay more than his budget pays all of it. A value v that nothing binds pays
    p(v), the integral of t dx(t) up to v, so that revenue is the mean of p - p^2/2k, concave in x; where x grows,
    1 - p(v)/k must be in proportion to 1/v^2. In units of h that is x'(v) = 2 k t^2/v^4 from t to 1/2, and x ends at 1
    if 2 k (1/t - 8 t^2) = 3. (Derived here; Che and Gale 2000 treat any laws.)
    """
    if not isinstance(value, Uniform) or not isinstance(budget, Uniform) or value.low or budget.low:
        return None
    rich = budget.high / value.high
    low, high = 0.0, 0.5
    for _ in range(60):
        t = (low + high) / 2
        low, high = (low, t) if 2 * rich * (1 - 8 * t**3) < 3 * t else (t, high)
    revenue = budget.high / 2 * (1 - 4 / 3 * low - 16 / 3 * low**4)
    return Optimum(revenue, "Che and Gale 2000", None)


def _one_item(laws: Sequence[Law]) -> Optimum:
    """Myerson 1981; for i.i.d. U[0, h] in closed form, with reserve h/2."""
    scale = _scale(laws, (0, 1) * len(laws))
    if scale is not None:
        n = len(laws)
        revenue = scale * (2 * n / (n + 1) * (1 - 2.0 ** -(n + 1)) - (1 - 2.0**-n))
        return Optimum(revenue, "Myerson 1981", "itemwise_myerson")

    from truthful.laws.ironing import myerson_revenue

    revenue = myerson_revenue(laws)
    return Optimum(revenue, "Myerson 1981", "itemwise_myerson", error=QUADRATURE * revenue)


def _additive(laws: Sequence[Law]) -> Optimum | None:
    """One bidder who may want several items."""
    m = len(laws)
    if (h := _scale(laws, (0, 1) * m)) is not None and m <= 6:
        if m == 2:
            return Optimum(h * (12 + 2 * math.sqrt(2)) / 27, "Manelli and Vincent 2006", "menu", _by_size(h, m))
        source = "Giannakopoulos and Koutsoupias 2018"
        return Optimum(h * straight_jacket_revenue(m), source, "straight_jacket", _by_size(h, m))
    if m == 2 and (s := _scale(laws, (4, 16, 4, 7))) is not None:
        menu: Menu = (((0.5, 1.0), 8 * s), ((1.0, 1.0), 12 * s))
        return Optimum(88 / 9 * s, "Daskalakis, Deckelbaum and Tzamos 2017", "menu", menu)
    if m == 2 and all(isinstance(law, Uniform) and law.low == 0 for law in laws):
        return _rectangle(laws[0].high, laws[1].high)
    if all(isinstance(law, Exponential) for law in laws) and len(set(laws)) == 1:
        return _exponential(laws[0], m)
    return None


def _rectangle(one: float, two: float) -> Optimum | None:
    """U[0, one] x U[0, two], neither more than twice the other."""
    if max(one, two) > 2 * min(one, two):
        return None
    p, q = 2 / 3 * one, 2 / 3 * two
    both = p + q - math.sqrt(2 * one * two) / 3
    first, second = (one - p) * (both - p), (two - q) * (both - q)  # areas of who buys one item only
    nothing = p * q - (p + q - both) ** 2 / 2
    revenue = (p * first + q * second + both * (one * two - first - second - nothing)) / (one * two)
    menu: Menu = (((1.0, 0.0), p), ((0.0, 1.0), q), ((1.0, 1.0), both))
    return Optimum(revenue, "Thirumulanathan, Sundaresan and Narahari 2019", "menu", menu)


def _exponential(law: Law, m: int) -> Optimum | None:
    """I.i.d. exponential values: the bundle at the best price for their sum, p with sum_{k < m} p^k/k! = p^m/(m - 1)!.

    That is a theorem for values without a bound; let R be its revenue. Bounds that leave a share q of the mass change
    little: an auction for bounded values, offered to all, earns q times as much at least, so that the optimum is R/q
    at most, and this price earns (R - (1 - q) p)/q at least. Both differ from R by (1 - q) p/q at most.
    """
    assert isinstance(law, Exponential)
    if law.high < MEANS * law.mean:
        return None

    def excess(p: float) -> float:
        return sum(p**k / math.factorial(k) for k in range(m)) - p**m / math.factorial(m - 1)

    low, high = 0.0, float(m + 1)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    price = law.mean * low
    revenue = price * math.exp(-low) * sum(low**k / math.factorial(k) for k in range(m))
    kept = law.mass**m
    source = "Giannakopoulos 2015, for values without a bound"
    return Optimum(revenue, source, "menu", (((1.0,) * m, price),), error=(1 - kept) * price / kept)


def _unit_demand(laws: Sequence[Law]) -> Optimum | None:
    """One bidder, two items of which he wants one: U[0, h]^2 and U[2h, 3h]^2 (Pavlov 2011)."""
    if len(laws) != 2:
        return None
    if (h := _scale(laws, (0, 1, 0, 1))) is not None:
        price = h / math.sqrt(3)
        return Optimum(2 / 3 * price, "Pavlov 2011", "menu", (((1.0, 0.0), price), ((0.0, 1.0), price)))
    if (h := _scale(laws, (2, 3, 2, 3))) is not None:
        either = 4 / 3 + math.sqrt(5.5) / 3
        one = h * (either + 1 / 6)
        menu: Menu = (((0.5, 0.5), h * either), ((1.0, 0.0), one), ((0.0, 1.0), one))
        return Optimum(h * (either * (1 - 2 * (either - 2) ** 2) + 2 / 27), "Pavlov 2011", "menu", menu)
    return None


def _two_values(laws: tuple[tuple[Law, ...], ...]) -> Optimum | None:
    """Two bidders, two items, every value s or 2s with chance 1/2 each (Yao 2017): 25/8 s."""
    (law,) = same if len(same := set(sum(laws, ()))) == 1 else (None,)
    if not isinstance(law, Discrete) or len(law.atoms) != 2:
        return None
    if law.atoms[1] != 2 * law.atoms[0] or law.probabilities != (0.5, 0.5):
        return None
    return Optimum(25 / 8 * law.atoms[0], "Yao 2017", "linear_program")


def _by_size(scale: float, m: int) -> Menu:
    """Every set of items at the straight-jacket price of its size: with two items Manelli and Vincent's menu."""
    sets = (chosen for chosen in itertools.product((0.0, 1.0), repeat=m) if any(chosen))
    prices = straight_jacket_prices(m)
    return tuple((chosen, scale * prices[round(sum(chosen)) - 1]) for chosen in sets)


def _scale(laws: Sequence[Law], pattern: Sequence[int]) -> float | None:
    """s if the laws are U[s a, s b] with a, b, ... from `pattern`; None if they are not, whatever s."""
    if not all(isinstance(law, Uniform) for law in laws):
        return None
    ends = [end for law in laws for end in (law.low, law.high)]
    scale = max(ends) / max(pattern)
    return scale if all(math.isclose(a, scale * b, rel_tol=1e-12) for a, b in zip(ends, pattern, strict=True)) else None
