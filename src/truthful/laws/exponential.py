"""Exponential, cut off."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.laws.base import Law
from truthful.shapes import Float


@dataclass(frozen=True)
class Exponential(Law):
    """The exponential law of this mean, conditioned on [0, high].

    `mean` is that before conditioning. At high = 20 means the condition takes away 2.1e-9 of the mass.
    """

    mean: float
    high: float
    low = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.mean < math.inf and 0 < self.high < math.inf):
            raise ValueError(
                f"an exponential law needs a positive mean and high, got mean={self.mean:g} and high={self.high:g}"
            )

    @property
    def mass(self) -> float:
        """The chance of [0, high] before conditioning."""
        return -math.expm1(-self.high / self.mean)

    def cdf(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """(1 - exp(-v/mean)) / mass."""
        return (-torch.expm1(-values.clamp(0, self.high) / self.mean) / self.mass).clamp(0, 1)

    def quantile(self, unit: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """-mean log(1 - mass u)."""
        return (-self.mean * torch.log1p(-self.mass * unit)).clamp(0, self.high)

    def density(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """exp(-v/mean) / (mean mass)."""
        inside = (values >= 0) & (values <= self.high)
        return torch.where(inside, torch.exp(-values / self.mean) / (self.mean * self.mass), 0)

    def describe(self) -> str:
        """Its mean and where it ends."""
        return f"exponential of mean {self.mean:g} on [0, {self.high:g}]"
