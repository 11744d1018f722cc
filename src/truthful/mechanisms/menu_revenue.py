"""What a menu earns from one bidder with one or two items, exactly.

The types that choose an entry form a polygon. For each value of the first item the upper envelope of the entries'
utilities divides the second item's values into intervals; their probabilities are integrated over the first item,
by Gauss-Legendre between all corners of the polygons.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from truthful.laws import Law
from truthful.laws.quadrature import ends_and_kinks, gauss_legendre, has_atoms, smooth_pieces
from truthful.mechanisms.base import Mechanism
from truthful.mechanisms.quadrature import laws_of_items, revenue_over_atoms
from truthful.settings.base import Setting
from truthful.settings.regions import menu_regions
from truthful.settings.simplex import Simplex
from truthful.shapes import Float

ENTRIES = 40
"""The most entries that are ever taken, nothing included: corners are sought among all triples."""

Line = tuple[float, float, float]
"""a, b, c of the line a v1 + b v2 = c."""


def expected_price(
    mechanism: Mechanism, setting: Setting, allocations: Float[Tensor, "k m"], prices: Float[Tensor, "k"]
) -> float | None:
    """Expected price of the entry that a truthful bidder gets; None where it is not known.

    Args:
        mechanism: what sells by this menu.
        setting: of one bidder: independent values, or uniform on a simplex.
        allocations, prices: the entries, among them nothing for nothing.
    """
    columns = laws_of_items(mechanism, setting)
    allocations, prices = allocations.double().cpu(), prices.double().cpu()
    on_a_triangle = isinstance(setting, Simplex) and setting.n_items == 2  # its values depend on each other
    if columns is None and not on_a_triangle:
        return None
    laws = [column[0] for column in columns or ()]
    if any(map(has_atoms, laws)):
        return revenue_over_atoms(mechanism, setting)
    if len(laws) == 1:
        return _one_item(allocations[:, 0], prices, laws[0])
    if not on_a_triangle and not (len(laws) == 2 and setting.independent):
        return None
    allocations, prices = _taken(setting, allocations, prices)
    if len(prices) > ENTRIES:
        return None
    if on_a_triangle:
        return _simplex(allocations, prices, float(setting.high[0, 0]))
    return _independent(allocations, prices, *laws)


def _taken(setting: Setting, allocations: Tensor, prices: Tensor) -> tuple[Tensor, Tensor]:
    """The entries that some type takes: few of a learned menu."""
    one, two = allocations.T.tolist()
    menu = tuple(((a, b), price) for a, b, price in zip(one, two, prices.tolist(), strict=True))
    regions = [menu_regions(menu, support)[: len(menu)] for support in setting.polygons(0)]
    taken = torch.tensor([any(own) for own in zip(*regions, strict=True)])
    return allocations[taken], prices[taken]


def _one_item(chances: Tensor, prices: Tensor, law: Law) -> float:
    crossings = [
        float((prices[k] - prices[j]) / (chances[k] - chances[j]))
        for j, k in itertools.combinations(range(len(prices)), 2)
        if chances[j] != chances[k]
    ]
    ends = torch.tensor([law.low, *crossings, law.high], dtype=torch.float64).clamp(law.low, law.high).sort().values
    middles = (ends[1:] + ends[:-1]) / 2
    choice = (middles[:, None] * chances - prices).argmax(1)
    return float((prices[choice] * law.cdf(ends).diff()).sum())


def _independent(allocations: Tensor, prices: Tensor, first: Law, second: Law) -> float:
    def mass(values: Tensor, ends: Tensor) -> Tensor:
        density = first.density(values)
        assert density is not None
        return density[:, None] * second.cdf(ends).diff()

    borders = [(0.0, 1.0, end) for end in ends_and_kinks(second)]
    top = torch.tensor(second.high, dtype=torch.float64)
    return _integrate(
        allocations, prices, smooth_pieces([first]), borders, second.low, lambda v: top.expand_as(v), mass
    )


def _simplex(allocations: Tensor, prices: Tensor, high: float) -> float:
    """Uniform on v >= 0, v1 + v2 <= high: the area of each interval's strip, over that of the triangle."""
    pieces = torch.tensor([0.0, high], dtype=torch.float64)
    borders = [(0.0, 1.0, 0.0), (1.0, 1.0, high)]
    return _integrate(
        allocations, prices, pieces, borders, 0.0, lambda v: high - v, lambda _, ends: ends.diff() * 2 / high**2
    )


def _integrate(
    allocations: Tensor,
    prices: Tensor,
    pieces: Tensor,
    borders: list[Line],
    bottom: float,
    top: Callable[[Tensor], Tensor],
    mass: Callable[[Tensor, Tensor], Tensor],
) -> float:
    """Integrate prices over first values in `pieces` and second values between `bottom` and `top` (first value).

    Args:
        allocations, prices: the entries.
        pieces: edges between which densities of the first value are smooth.
        borders: lines at which those of the second are not, or end.
        bottom, top: ends of the second value.
        mass: density of each first value times the chance of each interval of second values.
    """
    entries = torch.cat([allocations, prices[:, None]], 1)
    equal: dict[tuple[int, int], Line] = {}  # where two entries are equally good
    for j, k in itertools.combinations(range(len(prices)), 2):
        a, b, c = (entries[j] - entries[k]).tolist()
        equal[j, k] = (a, b, c)
    pairs = itertools.chain(
        itertools.product(equal.values(), borders),
        ((equal[j, k], equal[j, q]) for j, k, q in itertools.combinations(range(len(prices)), 3)),
    )
    corners = [corner for one, other in pairs if (corner := _meet(one, other)) is not None]
    upright = [c / a for a, b, c in equal.values() if a and not b]
    inside = torch.tensor([*corners, *upright], dtype=torch.float64).clamp(pieces[0], pieces[-1])
    values, weights = gauss_legendre(torch.cat([pieces, inside]).unique())

    slanted = torch.tensor([line for line in equal.values() if line[1]], dtype=torch.float64).reshape(-1, 3)
    crossings = (slanted[:, 2] - slanted[:, 0] * values[:, None]) / slanted[:, 1]
    low, high = torch.full_like(values, bottom)[:, None], top(values)[:, None]
    ends = torch.cat([low, crossings.clamp(low, high), high], 1).sort(1).values
    middles = (ends[:, 1:] + ends[:, :-1]) / 2
    types = torch.stack([values[:, None].expand_as(middles), middles], -1)
    choice = (types @ allocations.T - prices).argmax(-1)
    return float((weights[:, None] * prices[choice] * mass(values, ends)).sum())


def _meet(one: Line, other: Line) -> float | None:
    """The first coordinate of where two lines meet."""
    (a, b, c), (d, e, f) = one, other
    determinant = a * e - b * d
    return (c * e - b * f) / determinant if abs(determinant) > 1e-14 else None
