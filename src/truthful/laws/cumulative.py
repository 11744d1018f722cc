"""Integrals of a density over an interval: Gauss-Legendre on cells that are halved until they are accurate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from truthful.shapes import Float

ORDER = 16
CELLS = 32
"""Cells to begin with."""
ERROR = 1e-13
"""A cell is halved until that changes its integral by no more than this share of the whole."""
ACCURACY = 1e-9
"""The largest share of the whole in cells that cannot be halved, next to an end where the density is infinite."""
MOST_CELLS = 2**14
CHUNK = 2**16
"""Values that are integrated at once: enough to be efficient, few enough for memory."""


@cache
def gauss_legendre_rule(order: int) -> tuple[Float[Tensor, "k"], Float[Tensor, "k"]]:
    """Nodes in (0, 1) and weights that integrate polynomials of degree 2 order - 1 exactly (Golub and Welsch 1969)."""
    k = torch.arange(1, order, dtype=torch.float64)
    beside = k / (4 * k.square() - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return (1 + nodes) / 2, vectors[0].square()


class Cumulative:
    """The integral of a density from low to v, as a share of the whole, and its inverse; in float64.

    Args:
        density: not negative, not necessarily normalised; smooth but for `breaks` and for the ends, where it may be
            infinite. Takes and returns float64 of any shape.
        low, high: ends.
        breaks: points where it may be rough, or near which most of it may be; those outside (low, high) are ignored.

    Raises:
        ValueError: the integral is 0, the density is not finite or smooth, or double precision is too coarse near an
            end to know it to `ACCURACY`.
    """

    def __init__(self, density: Callable[[Tensor], Tensor], low: float, high: float, breaks: Sequence[float]) -> None:
        self.density = density
        inner = torch.tensor([b for b in breaks if low < b < high], dtype=torch.float64)
        edges = torch.cat([torch.linspace(low, high, CELLS + 1, dtype=torch.float64), inner]).unique()
        left, right = edges[:-1], edges[1:]
        kept: list[Tensor] = []
        total, doubt = 0.0, 0.0
        while len(left):
            middle = (left + right) / 2
            whole = self._integral(left, right)
            if not bool(whole.isfinite().all()) or len(left) > MOST_CELLS:
                raise ValueError(
                    f"a density must be finite and smooth inside ({low:g}, {high:g}), got one that cannot be integrated"
                )
            change = (whole - self._integral(left, middle) - self._integral(middle, right)).abs()
            least = (middle <= left) | (middle >= right)  # no number in between
            done = least | (change <= ERROR * (total + float(whole.sum())))
            kept.append(torch.stack([left, right, whole])[:, done])
            total, doubt = total + float(whole[done].sum()), doubt + float(whole[least].sum())
            rest = ~done
            left, right = torch.cat([left[rest], middle[rest]]), torch.cat([middle[rest], right[rest]])
        if total <= 0:
            raise ValueError(f"a density must have a positive integral over [{low:g}, {high:g}], got {total:g}")
        if not doubt <= ACCURACY * total:
            raise ValueError(
                f"a density must have an integral over [{low:g}, {high:g}] that double precision can tell to "
                f"{ACCURACY:g}, got one with {doubt / total:.1g} of it in the last digit before an end; move that end"
            )
        left, right, mass = torch.cat(kept, 1)[:, torch.cat(kept, 1)[0].argsort()]
        self.total = float(mass.sum())
        self.edges = torch.cat([left, right[-1:]])
        self.mass = torch.cat([torch.zeros_like(mass[:1]), mass.cumsum(0)]) / self.total
        self.mass[-1] = 1.0

    def cdf(self, values: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The share below each value."""
        edges, mass = self.edges.to(values.device), self.mass.to(values.device)
        values = values.clamp(edges[0], edges[-1])
        cell = (torch.searchsorted(edges, values.detach(), right=True) - 1).clamp(0, len(edges) - 2)
        below = (mass[cell] + self._integral(edges[cell], values) / self.total).clamp(0, 1)
        return torch.where(values < edges[-1], below, 1)

    def quantile(self, unit: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The value with this share below it, by Newton's method, kept inside a shrinking bracket."""
        edges, mass = self.edges.to(unit.device), self.mass.to(unit.device)
        unit = unit.clamp(0, 1)
        cell = torch.searchsorted(mass[1:-1], unit)
        low, high = edges[cell], edges[cell + 1]
        share = ((unit - mass[cell]) / (mass[cell + 1] - mass[cell])).nan_to_num(0.0)
        values = (low + share * (high - low)).clamp(low, high)
        rows = torch.arange(len(values), device=values.device)
        for _ in range(100):
            here = values[rows]
            excess = self.cdf(here) - unit[rows]
            above = excess > 0
            high[rows] = torch.where(above, here, high[rows])
            low[rows] = torch.where(above, low[rows], here)
            middle = (low[rows] + high[rows]) / 2
            moving = (excess.abs() > ERROR) & (low[rows] < middle) & (middle < high[rows])
            rows, here, excess, middle = rows[moving], here[moving], excess[moving], middle[moving]
            if not len(rows):
                break
            newton = here - excess * self.total / self.density(here)
            inside = (newton > low[rows]) & (newton < high[rows])
            values[rows] = torch.where(inside, newton, middle)
        return values

    def _integral(self, left: Tensor, right: Tensor) -> Tensor:
        nodes, weights = (part.to(right.device) for part in gauss_legendre_rule(ORDER))
        width = right - left
        return width * (self.density(left.unsqueeze(-1) + width.unsqueeze(-1) * nodes) @ weights)


def in_chunks(function: Callable[[Tensor], Tensor], values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """A function of flat float64 tensors, applied to any number of values of any shape and precision."""
    flat = values.reshape(-1).double()
    return torch.cat([function(part) for part in flat.split(CHUNK)]).view(values.shape).to(values)
