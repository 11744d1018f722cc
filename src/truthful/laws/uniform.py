"""Uniform on an interval."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.laws.base import Law
from truthful.shapes import Float


@dataclass(frozen=True)
class Uniform(Law):
    """U[low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high < float("inf"):
            raise ValueError(f"a uniform law needs 0 <= low < high, got low={self.low:g} and high={self.high:g}")

    def cdf(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """P(value <= v)."""
        return ((values - self.low) / (self.high - self.low)).clamp(0, 1)

    def quantile(self, unit: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Linear."""
        return (self.low + (self.high - self.low) * unit).clamp(self.low, self.high)

    def density(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Constant."""
        inside = (values >= self.low) & (values <= self.high)
        return torch.where(inside, torch.full_like(values, 1 / (self.high - self.low)), 0)
