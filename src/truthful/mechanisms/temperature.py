"""How much bidders err in what training differentiates, so that a choice has a slope."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from truthful.settings.base import Setting
from truthful.streams import Stream, generator

PROFILES = 1000


class Temperature(nn.Module):
    """A temperature that falls geometrically during training, and the unit in which a mechanism learns.

    The unit is the standard deviation of the sum of a bidder's values, the mean over bidders, on a sample of training
    profiles: so a recipe does not depend on the currency.

    Args:
        setting: whose values.
        hot, cold: the temperature at the start and at the end of training, in that unit.
    """

    unit: Tensor
    value: Tensor
    """In the currency, as is the unit."""

    def __init__(self, setting: Setting, hot: float, cold: float) -> None:
        super().__init__()
        if not 0 < cold <= hot:
            raise ValueError(f"the temperatures hot and cold must be above 0, cold at most hot, got {hot} and {cold}")
        self.hot, self.cold = hot, cold
        values = setting.part(Stream.TRAIN).sample(PROFILES, generator(0, Stream.TRAIN))
        self.register_buffer("unit", values.sum(-1).std(0).mean())
        self.register_buffer("value", torch.zeros(()))
        self.fall(0.0)

    def fall(self, progress: float) -> None:
        """Be what it is after the share `progress` of training."""
        self.value.copy_(self.unit * self.hot * (self.cold / self.hot) ** progress)
