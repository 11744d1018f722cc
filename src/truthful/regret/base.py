"""What training minimises in the name of regret, and how misreports are searched for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from truthful.auction import Outcome
from truthful.mechanisms.base import Mechanism
from truthful.settings.base import Setting
from truthful.shapes import Float


@dataclass(frozen=True)
class Found:
    """What a search found for every profile and bidder. All of it is detached."""

    best: Float[Tensor, "*b n m"]
    """The best misreport seen; the truth where nothing better was seen."""
    gain: Float[Tensor, "*b n"]
    """What the best misreport earns over the truth: a lower bound on regret, never negative."""
    last: Float[Tensor, "*b n m"]
    """The last iterate, which need not be the best."""


class Search(ABC):
    """Looks for profitable misreports in the support. Changes none of its inputs and no parameter's gradient."""

    @abstractmethod
    def climb(
        self, mechanism: Mechanism, setting: Setting, values: Float[Tensor, "*b n m"], start: Float[Tensor, "*s n m"]
    ) -> Float[Tensor, "*s n m"]:
        """Only the last iterate, for training, which evaluates it anyway."""

    @abstractmethod
    def __call__(
        self, mechanism: Mechanism, setting: Setting, values: Float[Tensor, "*b n m"], start: Float[Tensor, "*s n m"]
    ) -> Found:
        """The best misreport seen from `start` on. `start` may have more leading axes (`s`) than `values`."""


class RegretMode(nn.Module, ABC):
    """The regret that training sees. Kept misreports are a buffer of the mode, and so in the checkpoint."""

    local: bool
    """Whether only the truth's neighbourhood is searched, relying on the sufficiency of local incentive
    compatibility."""

    @abstractmethod
    def prepare(self, setting: Setting, sample: Float[Tensor, "s n m"] | None, generator: torch.Generator) -> None:
        """Check the preconditions and allocate the buffers, once, before training or loading a checkpoint.

        `sample` is the fixed training sample, or None if every batch is fresh. Raises ValueError if the mode does not
        fit the setting or the data.
        """

    @abstractmethod
    def forward(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "b n m"],
        truthful: Outcome,
        rows: slice | None,
        generator: torch.Generator,
    ) -> Float[Tensor, "n"]:
        """Regret per bidder, the mean over the batch, differentiable in the mechanism.

        `truthful` is the mechanism's outcome at `values` (with its graph); `rows` are the rows of the fixed sample
        that `values` are, None for a fresh batch; `generator` is for this iteration's starting points.
        """
