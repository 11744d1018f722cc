"""Where a training search starts."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from truthful.regret.steps import positive
from truthful.settings.base import Setting
from truthful.shapes import Float


class Start(ABC):
    """A starting misreport for every profile and bidder."""

    @abstractmethod
    def __call__(
        self, setting: Setting, values: Float[Tensor, "b n c"], generator: torch.Generator
    ) -> Float[Tensor, "b n r"]:
        """Starting misreports for `values`, in the support."""


class TruthfulStart(Start):
    """Start at the true valuation (paper, section 3.3)."""

    def __call__(
        self, setting: Setting, values: Float[Tensor, "b n c"], generator: torch.Generator
    ) -> Float[Tensor, "b n r"]:
        """The values themselves."""
        return setting.reports(values)


class NearbyStart(Start):
    """Start at a random place near the truth: uniform in a ball of the max norm, projected.

    Args:
        radius: of the ball, as a share of the support's width.
    """

    def __init__(self, radius: float) -> None:
        self.radius = positive("the radius of a random start", radius)

    def __call__(
        self, setting: Setting, values: Float[Tensor, "b n c"], generator: torch.Generator
    ) -> Float[Tensor, "b n r"]:
        """One draw for each profile and bidder."""
        values = setting.reports(values)
        low, high = setting.bounds(values)
        uniform = torch.rand(values.shape, generator=generator, dtype=values.dtype).to(values.device)
        return setting.project(values + self.radius * (high - low) * (2 * uniform - 1))


class RandomStart(Start):
    """Start at an independent draw from the setting's law."""

    def __call__(
        self, setting: Setting, values: Float[Tensor, "b n c"], generator: torch.Generator
    ) -> Float[Tensor, "b n r"]:
        """As many draws as there are values."""
        return setting.reports(setting.sample(len(values), generator)).to(values.device)
