"""Where a training search starts."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from truthful.settings.base import Setting
from truthful.shapes import Float


class Start(ABC):
    """A starting misreport for every profile and bidder."""

    @abstractmethod
    def __call__(
        self, setting: Setting, values: Float[Tensor, "b n m"], generator: torch.Generator
    ) -> Float[Tensor, "b n m"]:
        """Starting misreports for `values`, in the support."""


class TruthfulStart(Start):
    """Start at the true valuation (paper, section 3.3)."""

    def __call__(
        self, setting: Setting, values: Float[Tensor, "b n m"], generator: torch.Generator
    ) -> Float[Tensor, "b n m"]:
        """The values themselves."""
        return values


class RandomStart(Start):
    """Start at an independent draw from the setting's law."""

    def __call__(
        self, setting: Setting, values: Float[Tensor, "b n m"], generator: torch.Generator
    ) -> Float[Tensor, "b n m"]:
        """As many draws as there are values."""
        return setting.sample(len(values), generator).to(values.device)
