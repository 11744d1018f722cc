"""The unit in which mechanisms learn, so that a recipe does not depend on the currency."""

from __future__ import annotations

from torch import Tensor

from truthful.settings.base import Setting
from truthful.shapes import Float
from truthful.streams import Stream, generator

PROFILES = 1000


def spread(setting: Setting) -> Float[Tensor, ""]:
    """The standard deviation of the sum of a bidder's values, the mean over bidders, on a sample of training profiles."""
    values = setting.part(Stream.TRAIN).sample(PROFILES, generator(0, Stream.TRAIN))
    return values.sum(-1).std(0).mean()
