"""Mixtures of uniform laws on disjoint intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from truthful.laws.base import Law
from truthful.shapes import Float


@dataclass(frozen=True)
class PiecewiseUniform(Law):
    """Uniform on each of several intervals, which are drawn with chances proportional to `weights`.

    Intervals are disjoint and ascend. Where one ends as the next begins the support has no gap between them; only
    without any gap is it convex.
    """

    intervals: Sequence[Sequence[float]]
    weights: Sequence[float]
    low: float = field(init=False, repr=False, compare=False)
    high: float = field(init=False, repr=False, compare=False)
    convex: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        intervals = tuple(tuple(float(end) for end in interval) for interval in self.intervals)
        ends = [end for interval in intervals for end in interval]
        if (
            not intervals
            or any(len(interval) != 2 or not interval[0] < interval[1] for interval in intervals)
            or ends != sorted(ends)
            or not 0 <= ends[0] <= ends[-1] < math.inf
        ):
            raise ValueError(
                f"intervals must be disjoint pairs 0 <= low < high in ascending order, got {self.intervals!r}"
            )
        weights = tuple(float(weight) for weight in self.weights)
        if len(weights) != len(intervals) or not all(0 < weight < math.inf for weight in weights):
            raise ValueError(
                f"weights must be {len(intervals)} positive numbers, one an interval, got {self.weights!r}"
            )
        total = math.fsum(weights)
        for name, entry in (
            ("intervals", intervals),
            ("weights", tuple(weight / total for weight in weights)),
            ("low", ends[0]),
            ("high", ends[-1]),
            ("convex", all(a[1] == b[0] for a, b in itertools.pairwise(intervals))),
        ):
            object.__setattr__(self, name, entry)

    def cdf(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Piecewise linear."""
        parts = zip(self.intervals, self.weights, strict=True)
        return sum(
            (weight * ((values - a) / (b - a)).clamp(0, 1) for (a, b), weight in parts), torch.zeros_like(values)
        ).clamp(0, 1)

    def quantile(self, unit: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Piecewise linear, with a jump at each gap."""
        weight = torch.tensor(self.weights, dtype=torch.float64).to(unit)
        low, high = torch.tensor(self.intervals, dtype=torch.float64).to(unit).unbind(-1)
        upto = torch.tensor(self.weights, dtype=torch.float64).cumsum(0).to(unit)
        k = torch.searchsorted(upto[:-1], unit.contiguous())
        share = ((unit - upto[k] + weight[k]) / weight[k]).clamp(0, 1)
        return torch.minimum(torch.maximum(low[k] + share * (high[k] - low[k]), low[k]), high[k])

    def density(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Piecewise constant; where two intervals meet that of the upper one."""
        density = torch.zeros_like(values)
        for (a, b), weight in zip(self.intervals, self.weights, strict=True):
            density = torch.where((values >= a) & (values <= b), weight / (b - a), density)
        return density

    def project(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The nearest point of the intervals; the lower one of two."""
        (low, high), *others = self.pieces
        nearest = values.clamp(low, high)
        for a, b in others:
            nearest = torch.where(values > (high + a) / 2, values.clamp(a, b), nearest)
            high = b
        return nearest

    @property
    def kinks(self) -> tuple[float, ...]:
        """Ends of intervals inside (low, high)."""
        ends = {end for interval in self.intervals for end in interval}
        return tuple(sorted(ends - {self.low, self.high}))

    @property
    def pieces(self) -> tuple[tuple[float, float], ...]:
        """The intervals, those that touch as one."""
        runs: list[tuple[float, float]] = []
        for a, b in self.intervals:
            runs = [*runs[:-1], (runs[-1][0], b)] if runs and runs[-1][1] == a else [*runs, (a, b)]
        return tuple(runs)

    def describe(self) -> str:
        """The mixture."""
        parts = zip(self.intervals, self.weights, strict=True)
        return " + ".join(f"{weight:.3g} U[{a:g}, {b:g}]" for (a, b), weight in parts)
