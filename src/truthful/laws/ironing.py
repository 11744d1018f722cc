"""Ironed virtual values of any law, and what the optimal auction of one item earns (Myerson 1981).

In quantile space a price v sells with chance 1 - u, u = P(value < v), and earns R(u) = (1 - u) v. The virtual value
v - (1 - F(v)) / f(v) is -R'(u); the ironed one is minus the slope of the concave hull of R.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.laws.base import Law
from truthful.laws.curve import MonotoneCurves
from truthful.laws.quadrature import atoms, cdf_below, ends_and_kinks, gauss_legendre, has_atoms
from truthful.shapes import Float

CELLS = 512
"""Cells of the table between two kinks that are even in values, and as many on the whole that are even in chance."""

FLOOR = -1000.0
"""Virtual values below this multiple of the highest value are cut: they may be infinite, and never sell."""

FINE, HALVED = 24, 40
"""Times that the chance of a lower, and of a higher, value is halved in that table: in four steps, and in all."""

APART = 0.1
"""Of the distance of its neighbours, at which a quantile must be from the even knots: closer, rounding is ironed."""

ROUNDING = 1e-13
"""Quantiles between which the revenue curve bends by less than this share of the value are no knots."""

TAIL = 1e-12
"""Beyond the value that is exceeded with this chance, 1 - F is rounding: the table is linear from there on."""

HALVINGS = 64
"""Of a cell of the table: down to rounding."""

Interval = tuple[float, float, float]
"""Left end, right end, ironed virtual value."""


@dataclass(frozen=True, eq=False)
class IronedLaw:
    """A law with its ironed virtual values, as a table in value space.

    The table is exact at its knots and linear between them, which is exact throughout for uniform, piecewise uniform
    and discrete laws. Otherwise it is off by about 1e-6 of the range of values at most, and an auction that uses it
    earns the optimum less about the square of that: it maximises, so that errors are of second order.
    """

    law: Law
    values: Float[Tensor, "k"]
    """Ascending; in float64. A jump has two knots at one value ..."""
    virtual: Float[Tensor, "k"]
    """... and an ironed interval two of the same virtual value."""
    ironed: tuple[Interval, ...]
    """Intervals of values that are ironed, and the virtual value they share."""

    def virtual_value(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Ironed virtual values; in a gap of the support those of the value below."""
        inside: Tensor = self._curve()(values.double().unsqueeze(-1)).squeeze(-1)
        if not has_atoms(self.law):
            exact = virtual_value(self.law, values.double())
            flat = torch.zeros_like(values, dtype=torch.bool)
            for left, right, _ in self.ironed:
                flat |= (values >= left) & (values < right)
            inside = torch.where(flat | ~exact.isfinite() | (values >= self.law.high), inside, exact)
        return inside.to(values)

    def threshold(self, virtual: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The smallest value of the support whose ironed virtual value reaches a number; inf if none does."""
        wanted = virtual.double().flatten()
        found = self._curve().inverse(wanted.unsqueeze(-1)).squeeze(-1)
        if has_atoms(self.law):
            return found.reshape(virtual.shape).to(virtual)
        after = torch.searchsorted(self.virtual, wanted).clamp(1, len(self.values) - 1)
        left, right = self.values[after - 1], self.values[after]
        between = (self.virtual[after - 1] < wanted) & (wanted < self.virtual[after]) & (left < right)
        exact = _first(lambda v: virtual_value(self.law, v) >= wanted, left, right)
        return torch.where(between, exact, found).reshape(virtual.shape).to(virtual)

    @property
    def reserve(self) -> float:
        """The monopoly reserve: the smallest value whose ironed virtual value is not negative."""
        return float(self.threshold(torch.zeros((), dtype=torch.float64)))

    def _curve(self) -> MonotoneCurves:
        return MonotoneCurves(self.values[None], self.virtual[None])


def virtual_value(law: Law, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """v - (1 - F(v)) / f(v), not ironed, for a law with a density; -inf where that is 0."""
    density = law.density(values)
    assert density is not None
    return torch.where(density > 0, values - (1 - law.cdf(values)) / density.clamp_min(1e-300), -torch.inf)


def iron(law: Law) -> IronedLaw:
    """Iron a law. One without a density must be discrete, with its atoms at low, kinks and high."""
    return _iron_atoms(law) if has_atoms(law) else _iron_density(law)


def iron_all(laws: Sequence[Law]) -> list[IronedLaw]:
    """Iron several laws, equal ones once."""
    distinct: list[IronedLaw] = []
    found = []
    for law in laws:
        known = next((one for one in distinct if one.law == law), None)
        if known is None:
            distinct.append(known := iron(law))
        found.append(known)
    return found


def myerson_revenue(laws: Sequence[Law]) -> float:
    """Revenue of the optimal auction of one item to bidders with independent values, one law a bidder.

    See `myerson_integral`, which says how accurate it is: usually to 1e-8 of it.
    """
    return myerson_integral(laws)[0]


def myerson_integral(laws: Sequence[Law]) -> tuple[float, float]:
    """Myerson's revenue, and how much it changes with the order of the quadrature.

    It is E max(0, largest ironed virtual value), the integral over t >= 0 of 1 - prod_i P(virtual value of i <= t);
    by Gauss-Legendre between the knots of the tables, and between halves of halves of the highest, with exact virtual
    values.
    """
    ironed = iron_all(laws)
    knots = torch.cat([torch.zeros(1, dtype=torch.float64), *(one.virtual for one in ironed)]).clamp_min(0)
    halves = knots.max() * 2.0 ** -torch.arange(1, HALVINGS, dtype=torch.float64)
    edges = torch.cat([knots, halves]).unique()

    def integral(order: int) -> float:
        nodes, weights = gauss_legendre(edges, order)
        below = torch.ones_like(nodes)
        for one in dict.fromkeys(ironed):
            value = one.threshold(nodes)
            chance = torch.where(value.isinf(), 1, cdf_below(one.law, value.clamp_max(one.law.high)))
            below *= chance ** ironed.count(one)
        return float((weights * (1 - below)).sum())

    coarse, fine = integral(4), integral(7)
    return fine, abs(fine - coarse)


def _iron_atoms(law: Law) -> IronedLaw:
    values, chances = atoms(law)
    below = torch.cat([torch.zeros(1, dtype=torch.float64), chances.cumsum(0)])
    below[-1] = 1
    revenue = torch.cat([(1 - below[:-1]) * values, torch.zeros(1, dtype=torch.float64)])
    corners = _hull(below, revenue)
    virtual = torch.empty_like(values)
    ironed: list[Interval] = []
    for a, b in itertools.pairwise(corners):
        virtual[a:b] = -(revenue[b] - revenue[a]) / (below[b] - below[a])
        if b - a > 1:
            ironed.append((float(values[a]), float(values[b - 1]), float(virtual[a])))
    virtual = virtual.cummax(0).values
    steps = torch.cat([virtual[:1], virtual[:-1]])
    return IronedLaw(law, values.repeat_interleave(2), torch.stack([steps, virtual], 1).flatten(), tuple(ironed))


def _iron_density(law: Law) -> IronedLaw:
    ends = torch.tensor(ends_and_kinks(law), dtype=torch.float64)
    kinks = ends[1:-1]
    even = [torch.linspace(a, b, CELLS + 1, dtype=torch.float64) for a, b in itertools.pairwise(ends)]
    grid = torch.cat(even).unique()
    tails = 2.0 ** -torch.cat([torch.arange(1, FINE, 1 / 4), torch.arange(FINE, HALVED)]).double()
    chances = torch.cat([torch.linspace(0, 1, CELLS + 1, dtype=torch.float64), tails, 1 - tails]).unique()
    extra = law.quantile(chances).clamp(law.low, law.high).unique()
    bend = (virtual_value(law, extra).diff() * law.cdf(extra).diff()).abs() > ROUNDING * extra[1:]
    extra = extra[1:-1][bend[1:] & bend[:-1]]
    gaps = torch.cat([extra[:2], extra, extra[-2:]]).diff()  # of no width before the first and after the last
    nearest = torch.minimum(*(torch.where(gap > 0, gap, torch.inf) for gap in (gaps[1:-2], gaps[2:-1])))
    grid = torch.cat([grid, extra[_distance(extra, grid) > APART * nearest]]).unique()
    grid = torch.cat([grid[1 - law.cdf(grid) > TAIL], ends[-1:]])
    kinks = kinks[kinks < grid[-2]]
    ironed = _intervals(law, grid)

    # one-sided limits: a kink has one from either side, other points one
    places = torch.cat([grid[:-1], kinks])
    right = torch.cat([torch.ones(len(grid) - 1), torch.zeros(len(kinks))]).bool()
    aside = torch.nextafter(places, torch.where(right, torch.inf, -torch.inf).double())
    virtual = virtual_value(law, aside)
    for a, b, level in ironed:
        after, before = (places > a) | ((places == a) & right), (places < b) | ((places == b) & ~right)
        virtual = torch.where(after & before, level, virtual)
    flats = torch.tensor(ironed, dtype=torch.float64).reshape(-1, 3)
    last = torch.tensor([law.high], dtype=torch.float64)  # there (1 - F)/f vanishes
    places, virtual = torch.cat([places, flats[:, 0], flats[:, 1], last]), torch.cat([virtual, *flats.T[[2, 2]], last])
    virtual = virtual.clamp(FLOOR * law.high, law.high)
    order = virtual.argsort(stable=True)
    order = order[places[order].argsort(stable=True)]
    places, virtual = places[order], virtual[order].cummax(0).values
    raw = IronedLaw(law, places, virtual, tuple(ironed))
    zero = int(torch.searchsorted(virtual, 0.0))
    if 0 < zero < len(virtual):  # the reserve is a knot, too
        places = torch.cat([places[:zero], torch.tensor([raw.reserve], dtype=torch.float64), places[zero:]])
        virtual = torch.cat([virtual[:zero], torch.zeros(1, dtype=torch.float64), virtual[zero:]])
    return IronedLaw(law, places, virtual, tuple(ironed))


def _intervals(law: Law, grid: Float[Tensor, "k"]) -> list[Interval]:
    """Where the hull of the revenue curve leaves the curve.

    The hull of the grid says where; the ends are then the points whose virtual value is the chord's slope. That slope
    is stationary in the ends, so that alternating converges quadratically.
    """

    def revenue(values: Tensor) -> Tensor:
        return (1 - law.cdf(values)) * values

    chance = law.cdf(grid)
    corners = _hull(chance, revenue(grid))
    jumps = [(a, b) for a, b in itertools.pairwise(corners) if b - a > 1 and chance[b] > chance[a]]
    found = []
    for a, b in jumps:
        cells = torch.tensor([[a - 1, a + 1], [b - 1, b + 1]]).clamp(0, len(grid) - 1)
        ends = grid[torch.tensor([a, b])]
        for _ in range(4):
            slope = revenue(ends).diff() / law.cdf(ends).diff()
            ends = _first(lambda v, s=slope: virtual_value(law, v) >= -s, *grid[cells].T)
        left, right = ends.tolist()
        if right > left:
            level = -float(revenue(ends).diff() / law.cdf(ends).diff())
            found.append((left, right, level))
    return found


def _hull(chance: Float[Tensor, "k"], revenue: Float[Tensor, "k"]) -> list[int]:
    """Indices of the corners of the upper concave hull of points in ascending order (Andrew's monotone chain)."""
    points = list(zip(chance.tolist(), revenue.tolist(), strict=True))
    corners: list[int] = []
    for k, (x, y) in enumerate(points):
        while len(corners) > 1:
            (x1, y1), (x2, y2) = points[corners[-2]], points[corners[-1]]
            if (x2 - x1) * (y - y1) < (y2 - y1) * (x - x1):
                break
            corners.pop()
        if len(corners) == 1 and points[corners[0]][0] == x and points[corners[0]][1] <= y:
            corners.pop()
        corners.append(k)
    return corners


def _distance(points: Tensor, others: Tensor) -> Tensor:
    """From each point to the nearest of the others, which are ascending."""
    after = torch.searchsorted(others, points).clamp(1, len(others) - 1)
    return torch.minimum((points - others[after - 1]).abs(), (points - others[after]).abs())


def _first(holds: Callable[[Tensor], Tensor], left: Tensor, right: Tensor) -> Tensor:
    """The first point in [left, right] at which a condition that stays true once it is holds; else `right`."""
    start, holds_at_once = left, holds(left)
    for _ in range(HALVINGS):
        middle = (left + right) / 2
        true = holds(middle)
        left, right = torch.where(true, left, middle), torch.where(true, middle, right)
    return torch.where(holds_at_once, start, right)
