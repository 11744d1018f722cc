"""The law of one value, on an interval."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from truthful.shapes import Float


class Law(ABC):
    """The law of a single value with support in [low, high], which must be finite and not negative.

    Laws are compared by value: two that agree in type and arguments are equal, which is how a setting knows that its
    bidders or items are exchangeable. Functions keep the shape, precision and device of what they are given.
    """

    low: float
    high: float
    convex: bool = True
    """Whether the support is the whole interval."""

    @abstractmethod
    def cdf(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """P(value <= v)."""

    @abstractmethod
    def quantile(self, unit: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The smallest v with cdf(v) >= unit; uniform numbers become values of this law."""

    def density(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"] | None:
        """Density at v, 0 outside [low, high]; None for a law without a density."""
        return None

    def project(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The nearest point of the support."""
        return values.clamp(self.low, self.high)

    @property
    def kinks(self) -> tuple[float, ...]:
        """Points inside (low, high) where the density jumps or has a kink, for quadratures; atoms of a discrete law."""
        return ()

    @property
    def pieces(self) -> tuple[tuple[float, float], ...]:
        """The intervals that make up the support, ascending and apart; the ends of an atom's are the same."""
        return ((self.low, self.high),)

    def describe(self) -> str:
        """The law in a few words."""
        return f"{type(self).__name__} on [{self.low:g}, {self.high:g}]"
