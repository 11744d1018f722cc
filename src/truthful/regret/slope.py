"""Regret as the slope of utility at the truth: the gradient mode."""

from __future__ import annotations

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.mechanisms.base import Mechanism
from truthful.regret.ascent import gradient_at_truth, points_out
from truthful.regret.base import Begun, RegretMode, Run, check_sufficiency, directly
from truthful.regret.steps import positive
from truthful.settings.base import Setting
from truthful.shapes import Float


class SlopeRegret(RegretMode):
    """length * |projected gradient of a bidder's utility in his report, at the truth|, the mean over the batch.

    What a step of a small `length` gains, per length: the limit of a vanishing step, with no misreport at all. The
    gradient is in shares of the support's width, Euclidean; coordinates at a bound that it points out of do not count.
    It sees first order only. Needs an activation that can be differentiated twice: with ReLU it still is, almost
    everywhere, but knows nothing of the kinks.

    Args:
        length: turns the slope into units of value, as a share of the support's width.
        assume_sufficient: use it although local incentive compatibility is not known to suffice for the setting.
    """

    local = True
    evaluations = 1
    starts_at_truth = True

    def __init__(self, length: float, assume_sufficient: bool) -> None:
        super().__init__()
        self.length, self.assume_sufficient = positive("regret.length", length), assume_sufficient

    def prepare(self, setting: Setting, sample: Float[Tensor, "s n c"] | None, generator: torch.Generator) -> None:
        """Check the preconditions."""
        if not self.assume_sufficient:
            check_sufficiency(setting)

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
        return setting.reports(values.detach())

    def forward(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        truthful: Outcome,
        misreport: Float[Tensor, "*b n r"],
    ) -> Float[Tensor, "*p n"]:
        """The slope."""
        low, high = setting.bounds(values)
        slope = gradient_at_truth(setting, values, truthful, differentiable=True) * (high - low)
        with torch.no_grad():
            outwards = points_out(setting.reports(values), slope, low, high)
        inside = torch.where(outwards, torch.zeros_like(slope), slope)
        size = (inside.square().sum(-1) + 1e-12).sqrt()  # smooth where the slope vanishes
        return self.length * size.mean(-2)
