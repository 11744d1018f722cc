"""Where training valuations come from: a fixed sample, as in the paper, or fresh draws."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from truthful.errors import whole
from truthful.settings.base import Setting
from truthful.shapes import Float
from truthful.streams import Stream, generator


class Valuations(ABC):
    """Training valuations by iteration: a function of (seed, iteration) alone, so there is no position to restore."""

    sample: Float[Tensor, "s n c"] | None
    """The fixed sample, or None if every batch is fresh."""

    @abstractmethod
    def prepare(self, setting: Setting, batch: int, seed: int) -> None:
        """Draw what is fixed, once, before training."""

    @abstractmethod
    def __call__(self, iteration: int) -> tuple[Float[Tensor, "b n c"], slice | None]:
        """The batch of an iteration (from 0), and the rows of the fixed sample that it is."""


class FixedSample(Valuations):
    """A sample drawn once, cut into fixed batches whose order is drawn anew each epoch (paper, section 4.1).

    Args:
        samples: size of the sample, a multiple of the batch; 640,000 in the paper.
    """

    def __init__(self, samples: int) -> None:
        self.samples = whole("data.samples", samples, 1)

    def prepare(self, setting: Setting, batch: int, seed: int) -> None:
        """Draw the sample."""
        if self.samples % batch:
            raise ValueError(f"data.samples must be a multiple of batch, got {self.samples} and {batch}")
        self._batch, self._seed, self._epoch = batch, seed, -1
        self.sample = setting.part(Stream.TRAIN).sample(self.samples, generator(seed, Stream.TRAIN))

    def __call__(self, iteration: int) -> tuple[Float[Tensor, "b n c"], slice | None]:
        """The next batch of the epoch's order."""
        assert self.sample is not None
        batches = self.samples // self._batch
        epoch, position = divmod(iteration, batches)
        if epoch != self._epoch:
            self._order = torch.randperm(batches, generator=generator(self._seed, Stream.ORDER, epoch)).tolist()
            self._epoch = epoch
        first = self._order[position] * self._batch
        rows = slice(first, first + self._batch)
        return self.sample[rows], rows


class FreshSamples(Valuations):
    """New valuations at every iteration."""

    sample = None

    def prepare(self, setting: Setting, batch: int, seed: int) -> None:
        """Nothing is drawn beforehand."""
        self._setting, self._batch, self._seed = setting.part(Stream.TRAIN), batch, seed

    def __call__(self, iteration: int) -> tuple[Float[Tensor, "b n c"], slice | None]:
        """A batch of its own."""
        return self._setting.sample(self._batch, generator(self._seed, Stream.TRAIN, iteration)), None


class StratifiedSamples(Valuations):
    """New valuations at every iteration, each batch a Latin hypercube (McKay, Beckman and Conover 1979).

    Every value alone is spread evenly over its law within a batch, one draw in each of `batch` equal parts: every mean
    over the batch stays unbiased and loses much of its noise. For settings whose law is a function of uniform numbers
    (`Setting.quantile`).
    """

    sample = None

    def prepare(self, setting: Setting, batch: int, seed: int) -> None:
        """Nothing is drawn beforehand. Raises ValueError if the setting has no `quantile`."""
        self._setting, self._batch, self._seed = setting.part(Stream.TRAIN), batch, seed
        setting.quantile(torch.full((1, setting.n_bidders, setting.reported), 0.5))

    def __call__(self, iteration: int) -> tuple[Float[Tensor, "b n c"], slice | None]:
        """A batch of its own."""
        draws = generator(self._seed, Stream.TRAIN, iteration)
        shape = (self._batch, self._setting.n_bidders, self._setting.reported)
        stratum = torch.rand(shape, generator=draws).argsort(0)
        return self._setting.quantile((stratum + torch.rand(shape, generator=draws)) / self._batch), None
