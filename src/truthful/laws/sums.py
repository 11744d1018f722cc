"""The law of a sum of independent values: what a bidder pays attention to when all items are sold as one."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from truthful.laws.base import Law
from truthful.laws.quadrature import atoms, has_atoms
from truthful.laws.uniform import Uniform
from truthful.shapes import Float

TERMS = 4096
"""The most corners, or atoms, that an exact sum may have."""

EQUAL = 1e-6
"""Sums of atoms that differ by no more than this share of the highest are one: single precision has no more digits."""

CELLS = 2**16
"""Of the grid on which other densities are convolved."""

TAIL = 1e-13
"""Chance of the values that such a grid leaves out at either end."""

HALVINGS = 60


def sum_law(laws: Sequence[Law]) -> Law:
    """The law of a sum of independent values.

    Exact for uniform laws and for discrete ones (up to `TERMS` corners or atoms); other densities are convolved on
    a grid of `CELLS`. Raises ValueError for discrete laws among others.
    """
    if len(laws) == 1:
        return laws[0]
    discrete = [has_atoms(law) for law in laws]
    if all(discrete):
        return DiscreteSum(tuple(laws))
    if any(discrete):
        raise ValueError("the law of a sum is known for discrete values or for values with a density, not for both")
    uniform = tuple(law for law in laws if isinstance(law, Uniform))
    if len(uniform) == len(laws) and len(_corners(uniform)) <= TERMS:
        return UniformSum(uniform)
    return ConvolvedSum(tuple(laws))


@dataclass(frozen=True)
class _Sum(Law):
    laws: tuple[Law, ...]

    @property
    def low(self) -> float:  # type: ignore[override]
        """The sum of the lows."""
        return math.fsum(law.low for law in self.laws)

    @property
    def high(self) -> float:  # type: ignore[override]
        """The sum of the highs."""
        return math.fsum(law.high for law in self.laws)

    @abstractmethod
    def cdf(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """P(value <= v)."""

    def quantile(self, unit: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """By bisection of the cdf."""
        wanted = unit.double()
        left, right = torch.full_like(wanted, self.low), torch.full_like(wanted, self.high)
        for _ in range(HALVINGS):
            middle = (left + right) / 2
            reached = self.cdf(middle) >= wanted
            left, right = torch.where(reached, left, middle), torch.where(reached, middle, right)
        return torch.where(wanted > 0, right, self.low).to(unit)


@dataclass(frozen=True)
class UniformSum(_Sum):
    """The sum of independent uniform values, by inclusion and exclusion over the corners of their box.

    P(sum <= low + x) = sum over sets S of items of (-1)^|S| (x - widths of S)_+^m / (m! prod widths); the upper half
    by symmetry, which keeps it accurate.
    """

    laws: tuple[Uniform, ...]

    def cdf(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """A piecewise polynomial."""
        above, folded = self._fold(values)
        lower = self._power(folded, len(self.laws))
        return torch.where(above, 1 - lower, lower).clamp(0, 1).to(values)

    def density(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Its derivative."""
        inside = (values >= self.low) & (values <= self.high)
        density = self._power(self._fold(values)[1], len(self.laws) - 1).clamp_min(0)
        return torch.where(inside, density, 0).to(values)

    @property
    def kinks(self) -> tuple[float, ...]:
        """The corners."""
        return tuple(sorted(self.low + corner for corner in _corners(self.laws) if 0 < corner < self.high - self.low))

    def _fold(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Whether a value is in the upper half, and its distance from the nearer end."""
        distance = (values.double() - self.low).clamp(0, self.high - self.low)
        above = distance > (self.high - self.low) / 2
        return above, torch.where(above, self.high - self.low - distance, distance)

    def _power(self, distance: Tensor, degree: int) -> Tensor:
        total = torch.zeros_like(distance)
        for corner, sign in _corners(self.laws).items():
            if sign and corner <= (self.high - self.low) / 2:
                beyond = distance - corner
                total += sign * torch.where(beyond > 0, beyond**degree, 0)
        return total / (math.factorial(degree) * math.prod(law.high - law.low for law in self.laws))


def _corners(laws: Sequence[Uniform]) -> dict[float, int]:
    """Sums of widths over all sets of items, and how many more even sets than odd ones have it."""
    corners = {0.0: 1}
    for law in sorted(laws, key=lambda law: law.high - law.low):
        grown = dict(corners)
        for corner, count in corners.items():
            place = round(corner + law.high - law.low, 12)
            grown[place] = grown.get(place, 0) - count
        corners = grown
        if len(corners) > TERMS:
            break
    return corners


@dataclass(frozen=True)
class ConvolvedSum(_Sum):
    """The sum of independent values with densities, convolved on a grid; its density is linear between grid points.

    Each value is rounded to the middle of its cell, whose probability is exact: errors of the cdf are of the order of
    the square of a cell's width, if densities are smooth. The grid ends where a value is lower, or higher, with chance
    `TAIL`. How good it is, coarser grids tell.
    """

    cells: int = CELLS
    points: Tensor = field(init=False, compare=False, repr=False)
    densities: Tensor = field(init=False, compare=False, repr=False)
    below: Tensor = field(init=False, compare=False, repr=False)
    """The cdf at the points."""

    def __post_init__(self) -> None:
        tails = torch.tensor([TAIL, 1 - TAIL], dtype=torch.float64)
        ends = {law: law.quantile(tails).tolist() for law in dict.fromkeys(self.laws)}
        first, last = (math.fsum(ends[law][side] for law in self.laws) for side in (0, 1))
        width = (last - first) / self.cells
        size = self.cells + 2 * len(self.laws)
        spectrum = torch.ones(size + 1, dtype=torch.complex128)
        for law, (start, _) in ends.items():
            edges = start + width * torch.arange(size + 1, dtype=torch.float64)
            mass = law.cdf(edges.clamp_max(law.high)).diff()
            spectrum *= torch.fft.rfft(mass, n=2 * size) ** self.laws.count(law)
        mass = torch.fft.irfft(spectrum, n=2 * size)[:size].clamp_min(0)
        middles = first + width * (torch.arange(size, dtype=torch.float64) + len(self.laws) / 2)
        inside = middles < last
        none = torch.zeros(1, dtype=torch.float64)  # the density of two or more values at the ends of their support
        points = torch.cat([none + first, middles[inside], none + last])
        densities = torch.cat([none, mass[inside] / width, none])
        if first > self.low:
            points, densities = torch.cat([none + self.low, points]), torch.cat([none, densities])
        if last < self.high:
            points, densities = torch.cat([points, none + self.high]), torch.cat([densities, none])
        areas = points.diff() * (densities[1:] + densities[:-1]) / 2
        densities = densities / areas.sum()
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "densities", densities)
        object.__setattr__(self, "below", torch.cat([none, (areas / areas.sum()).cumsum(0)]))

    def coarser(self, times: int) -> ConvolvedSum:
        """The same sum on a grid of so many times fewer cells."""
        return self if times == 1 else ConvolvedSum(self.laws, self.cells // times)

    def cdf(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Quadratic between grid points."""
        k, share = self._locate(values)
        start, slope = self.densities[k], self.densities[k + 1] - self.densities[k]
        area = (self.points[k + 1] - self.points[k]) * (start * share + slope * share**2 / 2)
        return (self.below[k] + area).clamp(0, 1).to(values)

    def density(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Linear between grid points."""
        k, share = self._locate(values)
        inside = (values >= self.low) & (values <= self.high)
        return torch.where(inside, torch.lerp(self.densities[k], self.densities[k + 1], share), 0).to(values)

    def _locate(self, values: Tensor) -> tuple[Tensor, Tensor]:
        clipped = values.double().clamp(self.low, self.high)
        k = (torch.searchsorted(self.points, clipped.contiguous(), right=True) - 1).clamp(0, len(self.points) - 2)
        return k, (clipped - self.points[k]) / (self.points[k + 1] - self.points[k])


@dataclass(frozen=True)
class DiscreteSum(_Sum):
    """The sum of independent discrete values: all sums of atoms.

    Sums of the same numbers in other orders and precisions differ by rounding, and so do sums that would agree if atoms
    were not rounded to single precision. Those nearer to each other than `EQUAL` are one atom, the smallest of them.
    """

    convex = False
    table: tuple[tuple[float, float], ...] = field(init=False, compare=False, repr=False)
    """Values and probabilities."""

    def __post_init__(self) -> None:
        least = most = torch.zeros(1, dtype=torch.float64)  # of the sums that are one atom
        chances = torch.ones(1, dtype=torch.float64)
        for law in self.laws:
            values, shares = atoms(law)
            least, order = (least[:, None] + values).flatten().sort(stable=True)
            most = (most[:, None] + values).flatten()[order].cummax(0).values
            new = torch.cat([torch.ones(1, dtype=torch.bool), least[1:] - most[:-1] > EQUAL * most[-1]])
            last = torch.cat([new[1:], torch.ones(1, dtype=torch.bool)])
            shares = (chances[:, None] * shares).flatten()[order]
            chances = torch.zeros(int(new.sum()), dtype=torch.float64).index_add(0, new.cumsum(0) - 1, shares)
            least, most = least[new], most[last]
            if len(least) > TERMS:
                raise ValueError(f"the sum of these discrete values has more than {TERMS} atoms")
        object.__setattr__(self, "table", tuple(zip(least.tolist(), chances.tolist(), strict=True)))

    @property
    def low(self) -> float:  # type: ignore[override]
        """The first atom."""
        return self.table[0][0]

    @property
    def high(self) -> float:  # type: ignore[override]
        """The last atom."""
        return self.table[-1][0]

    @property
    def slack(self) -> float:
        """What a sum may fall short of its atom by: half the distance that atoms have at least."""
        return EQUAL / 2 * self.high

    @property
    def kinks(self) -> tuple[float, ...]:
        """The atoms inside."""
        return tuple(value for value, _ in self.table if self.low < value < self.high)

    def cdf(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """A step function."""
        places, chances = self._columns()
        below = torch.cat([torch.zeros(1, dtype=torch.float64), chances.cumsum(0)]).clamp_max(1)
        below[-1] = 1
        return below[torch.searchsorted(places, values.double().contiguous(), right=True)].to(values)

    def quantile(self, unit: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """An atom."""
        places, chances = self._columns()
        k = torch.searchsorted(chances.cumsum(0), unit.double().contiguous()).clamp_max(len(places) - 1)
        return places[k].to(unit)

    def project(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The nearest atom."""
        places = self._columns()[0]
        return places[(values.double().unsqueeze(-1) - places).abs().argmin(-1)].to(values)

    def _columns(self) -> tuple[Tensor, Tensor]:
        places, chances = torch.tensor(self.table, dtype=torch.float64).unbind(1)
        return places.contiguous(), chances.contiguous()
