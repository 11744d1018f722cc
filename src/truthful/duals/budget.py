"""The regret budget of Ivanov et al. (2022), as in the paper's section 2.4."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from truthful.duals.base import Dual
from truthful.shapes import Float

RATIO_FLOOR = 1e-9
"""Smallest ratio of regret to revenue that the logarithm sees (as in the released implementation)."""


class Budget(Dual):
    """One multiplier g for the sum of regret over bidders: penalty g * sum_i regret_i (paper, eq. 1).

    After each iteration g <- max(0, g + rate * (log(sum_i regret_i / revenue) - log R_max)) (eq. 2). The constant
    -g * R_max of eq. 1 has no gradient in the network and is left out.

    Args:
        n_bidders: every dual is told; there is one multiplier whatever their number.
        rate: step of the multiplier, eta in eq. 2.
        multiplier: its value at the start.
    """

    uses_budget = True
    rate: Tensor

    def __init__(self, n_bidders: int, rate: float, multiplier: float) -> None:
        super().__init__()
        if not 0 <= rate < math.inf:
            raise ValueError(f"dual.rate must be a number of at least 0, got {rate!r}")
        if not 0 <= multiplier < math.inf:
            raise ValueError(f"dual.multiplier must be a number of at least 0, got {multiplier!r}")
        self.register_buffer("rate", torch.tensor(rate, dtype=torch.float64), persistent=False)
        self.register_buffer("multiplier", torch.tensor(float(multiplier)))

    def relative_rate(self) -> float:
        """The rate over the multiplier: the larger that is, the longer it takes to change it."""
        return float(self.rate / self.multiplier.clamp_min(RATIO_FLOOR))

    def forward(self, regret: Float[Tensor, "*p n"], revenue: Float[Tensor, "*p"]) -> Float[Tensor, "*p"]:
        """g times the sum of regret."""
        return self.multiplier * regret.sum(-1)

    @torch.no_grad()
    def update(self, regret: Float[Tensor, "*p n"], revenue: Float[Tensor, "*p"], budget: Float[Tensor, "*p"]) -> None:
        """Eq. 2."""
        ratio = regret.sum(-1) / revenue.clamp_min(RATIO_FLOOR)
        self.multiplier.add_(self.rate * (ratio.clamp_min(RATIO_FLOOR).log() - budget.log())).clamp_min_(0)
