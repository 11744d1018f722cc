"""Any univariate distribution of torch."""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution as TorchDistribution
from torch.distributions import Laplace, MixtureSameFamily, Transform

from truthful.laws.base import Law
from truthful.laws.cumulative import Cumulative, in_chunks
from truthful.shapes import Float

LEAST_MASS = 1e-3
"""Where torch's cdf gives [low, high] less than this, differences of it lose digits, and the density is integrated."""
SPREAD = (-9.0, -3.0, -1.0, 0.0, 1.0, 3.0, 9.0)
"""Standard deviations from the mean at which an integral is divided, so that a narrow peak is not missed."""


@dataclass(frozen=True, eq=False)
class Distribution(Law):
    """A torch.distributions object, conditioned on [low, high].

    It is used in float64, with its parameters as it holds them (torch makes float32 of Python numbers). Where torch has
    no cdf or quantile function, as for Beta, the density is integrated, and the integral inverted: to 1e-9 in the cdf,
    and usually to 1e-12. For that the density must be smooth inside (low, high), except that of Laplace, and positive
    almost everywhere: this law is taken to have a convex support.

    Two laws are equal if they have the same bounds and their distributions are of one class of torch with the same
    parameters; transformed distributions and mixtures are equal to themselves only.

    Args:
        distribution: of a single number: batch_shape and event_shape (), with a log_prob.
        low, high: bounds, in the support of the distribution.
    """

    distribution: TorchDistribution
    low: float
    high: float

    def __post_init__(self) -> None:
        given = self.distribution
        if not isinstance(given, TorchDistribution):
            raise ValueError(f"distribution must be one of torch.distributions, got {given!r}")
        if given.batch_shape or given.event_shape:
            raise ValueError(
                f"distribution must be that of a single number, with batch_shape and event_shape (), got "
                f"{tuple(given.batch_shape)} and {tuple(given.event_shape)}"
            )
        if not 0 <= self.low < self.high < math.inf:
            raise ValueError(
                f"the bounds of a distribution must be 0 <= low < high, got low={self.low:g} and high={self.high:g}"
            )
        inside = self.low + (self.high - self.low) * torch.linspace(0, 1, 101, dtype=torch.float64)[1:-1]
        try:
            support, chance = self._exact.support, self._exact.log_prob(inside)
        except NotImplementedError:
            raise ValueError(f"distribution must have a support and a log_prob, got {type(given).__name__}") from None
        if support.is_discrete:
            raise ValueError(
                f"distribution must have a density, got {type(given).__name__}; use truthful.laws.Discrete"
            )
        if not bool(support.check(inside).all()) or not bool((chance > -math.inf).any()):
            raise ValueError(
                f"[low, high] must lie in the distribution's support and have positive mass, got [{self.low:g}, "
                f"{self.high:g}] for {given}"
            )
        self._table  # noqa: B018  a density that cannot be integrated is refused at once

    def cdf(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Torch's, or the integral of the density."""
        return in_chunks(self._cdf, values)

    def quantile(self, unit: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Torch's, or the inverse of the integral of the density."""
        return in_chunks(self._quantile, unit).clamp(self.low, self.high)

    def density(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Torch's, over the mass of [low, high]. May be infinite at the bounds."""
        inside = (values >= self.low) & (values <= self.high)
        density = in_chunks(lambda flat: self._relative(flat) / self._table.total, values)
        return torch.where(inside, density, 0)

    @property
    def kinks(self) -> tuple[float, ...]:
        """Of Laplace and of mixtures of it."""
        exact = self._exact
        part = exact.component_distribution if isinstance(exact, MixtureSameFamily) else exact
        points = part.loc.flatten().tolist() if isinstance(part, Laplace) else []
        return tuple(sorted({point for point in points if self.low < point < self.high}))

    def describe(self) -> str:
        """The distribution and its bounds."""
        parameters = ", ".join(f"{float(entry):.3g}" for _, entry in self._parameters)
        return f"{type(self.distribution).__name__}({parameters}) on [{self.low:g}, {self.high:g}]"

    def __eq__(self, other: object) -> bool:
        """By bounds, class and parameters."""
        return isinstance(other, Distribution) and self._key == other._key

    def __hash__(self) -> int:
        """Of what is compared."""
        return hash(self._key)

    @property
    def _parameters(self) -> list[tuple[str, Any]]:
        names = self.distribution.arg_constraints
        return [(name, getattr(self.distribution, name)) for name in names]

    @property
    def _key(self) -> tuple[Hashable, ...]:
        kind = type(self.distribution)
        ours = kind.__module__.startswith("torch.distributions.") and len(self._parameters) > 0
        what = (kind, *((name, float(entry)) for name, entry in self._parameters)) if ours else id(self.distribution)
        return (what, self.low, self.high)

    @cached_property
    def _exact(self) -> Any:
        return in_double(self.distribution)

    @cached_property
    def _peak(self) -> float:
        """About the largest log density, so that far tails do not underflow."""
        inside = self.low + (self.high - self.low) * torch.linspace(0, 1, 1001, dtype=torch.float64)[1:-1]
        return float(self._exact.log_prob(inside).max())

    def _relative(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The density over its peak, at the nearest point inside (low, high): at a bound log_prob may be undefined."""
        ends = torch.tensor([self.low, self.high], dtype=torch.float64)
        low, high = torch.nextafter(ends, ends.flip(0)).tolist()
        return torch.exp(self._exact.log_prob(values.clamp(low, high)) - self._peak)

    @cached_property
    def _table(self) -> Cumulative:
        try:
            mean, deviation = float(self._exact.mean), float(self._exact.stddev)
        except NotImplementedError:
            mean, deviation = math.nan, math.nan
        return Cumulative(self._relative, self.low, self.high, [*self.kinks, *(mean + k * deviation for k in SPREAD)])

    @cached_property
    def _mass_below(self) -> tuple[float, float] | None:
        """The chances of less than low and than high before conditioning, where torch's cdf is good for them."""
        try:
            below, upto = (
                float(self._exact.cdf(torch.tensor(end, dtype=torch.float64))) for end in (self.low, self.high)
            )
        except NotImplementedError:
            return None
        return (below, upto) if upto - below >= LEAST_MASS else None

    def _cdf(self, values: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        if self._mass_below is None:
            return self._table.cdf(values)
        below, upto = self._mass_below
        inside: Tensor = self._exact.cdf(values.clamp(self.low, self.high))
        return ((inside - below) / (upto - below)).clamp(0, 1)

    def _quantile(self, unit: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        if self._mass_below is not None:
            below, upto = self._mass_below
            try:
                found: Tensor = self._exact.icdf(below + (upto - below) * unit)
                return found
            except NotImplementedError:
                pass
        return self._table.quantile(unit)


def in_double(part: Any) -> Any:
    """A copy of a distribution, or of a part of one, with parameters in float64, that does not check arguments."""
    if isinstance(part, Tensor):
        return part.detach().double() if part.is_floating_point() else part
    if isinstance(part, (list, tuple)):
        return type(part)(in_double(entry) for entry in part) if type(part) in (list, tuple) else part
    if not isinstance(part, (TorchDistribution, Transform)):
        return part
    twin = copy.copy(part)
    for name, entry in vars(part).items():
        twin.__dict__[name] = in_double(entry)
    if isinstance(twin, TorchDistribution):
        twin._validate_args = False
    return twin
