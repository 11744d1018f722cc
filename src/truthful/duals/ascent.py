"""Dual ascent, for what is 0 more often than not."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from truthful.duals.base import Dual
from truthful.duals.budget import RATIO_FLOOR
from truthful.shapes import Float

STEEPEST = 4.0
"""Largest step of the multiplier, in units of the rate."""


class Ascent(Dual):
    """One multiplier g for the sum of regret over bidders: penalty g * sum_i regret_i, as in `Budget`.

    After each iteration g <- max(0, g + rate * min(sum_i regret_i / revenue / R_max - 1, 4)). Near the budget that is
    the rule of `Budget`. Where a batch's regret varies by orders of magnitude, that one brings the mean of its
    logarithm to the budget's, so that regret itself is above it, by any factor; this one brings regret to the budget.

    Args:
        n_bidders: every dual is told; there is one multiplier whatever their number.
        rate: step of the multiplier.
        multiplier: its value at the start.
    """

    uses_budget = True
    rate: Tensor

    def __init__(self, n_bidders: int, rate: float, multiplier: float) -> None:
        super().__init__()
        for name, number in (("rate", rate), ("multiplier", multiplier)):
            if not 0 <= number < math.inf:
                raise ValueError(f"dual.{name} must be a number of at least 0, got {number!r}")
        self.register_buffer("rate", torch.tensor(rate, dtype=torch.float64), persistent=False)
        self.register_buffer("multiplier", torch.tensor(float(multiplier)))

    def forward(self, regret: Float[Tensor, "*p n"], revenue: Float[Tensor, "*p"]) -> Float[Tensor, "*p"]:
        """g times the sum of regret."""
        return self.multiplier * regret.sum(-1)

    @torch.no_grad()
    def update(self, regret: Float[Tensor, "*p n"], revenue: Float[Tensor, "*p"], budget: Float[Tensor, "*p"]) -> None:
        """A step towards the budget."""
        excess = regret.sum(-1) / revenue.clamp_min(RATIO_FLOOR) / budget - 1
        self.multiplier.add_(self.rate * excess.clamp_max(STEEPEST)).clamp_min_(0)
