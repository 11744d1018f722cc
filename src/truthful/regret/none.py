"""No regret at all: for mechanisms that are truthful by a theorem."""

from __future__ import annotations

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.mechanisms.base import Mechanism
from truthful.regret.base import Begun, RegretMode, Run, directly
from truthful.settings.base import Setting
from truthful.shapes import Float


class NoRegret(RegretMode):
    """Zero: training maximises revenue, since no lie pays in a mechanism that is truthful by construction."""

    local = False
    evaluations = 0
    needs_theorem = True

    def prepare(self, setting: Setting, sample: Float[Tensor, "s n c"] | None, generator: torch.Generator) -> None:
        """Nothing to check."""

    def begin(
        self, setting: Setting, values: Float[Tensor, "b n c"], rows: slice | None, generator: torch.Generator
    ) -> Begun:
        """Nothing."""
        return ()

    def find(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        begun: Begun,
        truthful: Outcome | None = None,
        run: Run = directly,
    ) -> Float[Tensor, "*b n r"]:
        """The truth."""
        return setting.reports(values)

    def forward(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        truthful: Outcome,
        misreport: Float[Tensor, "*b n r"],
    ) -> Float[Tensor, "*p n"]:
        """Zero."""
        return torch.zeros_like(truthful.payment.mean(-2))
