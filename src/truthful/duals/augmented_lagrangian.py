"""The augmented Lagrangian of the original RegretNet (paper, section 2.3 and appendix B)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from truthful.duals.base import Dual
from truthful.errors import whole
from truthful.shapes import Float


class AugmentedLagrangian(Dual):
    """One multiplier a bidder: penalty sum_i l_i regret_i + rho/2 sum_i regret_i^2 (paper, section 2.3).

    Every `update_every` iterations l_i <- l_i + rho * regret_i (appendix B); every `rho_every` iterations
    rho <- rho + rho_growth. It knows no budget, so R_max has no effect.

    Args:
        n_bidders: number of multipliers.
        multiplier: their value at the start.
        rho: weight of the quadratic penalty at the start.
        update_every: iterations between updates of the multipliers, Q in appendix B.
        rho_growth: what rho grows by.
        rho_every: iterations between growths of rho.
    """

    uses_budget = False
    rho: Tensor
    updates: Tensor

    def __init__(
        self, n_bidders: int, multiplier: float, rho: float, update_every: int, rho_growth: float, rho_every: int
    ) -> None:
        super().__init__()
        for name, number in (("multiplier", multiplier), ("rho", rho), ("rho_growth", rho_growth)):
            if not 0 <= number < math.inf:
                raise ValueError(f"dual.{name} must be a number of at least 0, got {number!r}")
        for name, count in (("update_every", update_every), ("rho_every", rho_every)):
            whole(f"dual.{name}", count, 1)
        self.update_every, self.rho_growth, self.rho_every = update_every, rho_growth, rho_every
        self.register_buffer("multiplier", torch.full((n_bidders,), float(multiplier)))
        self.register_buffer("rho", torch.tensor(float(rho)))
        self.register_buffer("updates", torch.tensor(0))

    def forward(self, regret: Float[Tensor, "*p n"], revenue: Float[Tensor, "*p"]) -> Float[Tensor, "*p"]:
        """The linear and the quadratic penalty."""
        return (self.multiplier * regret).sum(-1) + self.rho / 2 * regret.square().sum(-1)

    @torch.no_grad()
    def update(self, regret: Float[Tensor, "*p n"], revenue: Float[Tensor, "*p"], budget: Float[Tensor, "*p"]) -> None:
        """Appendix B, but with the regret from before the network's step, which costs no further search.

        What is not due is multiplied by 0, so that nothing waits for the device.
        """
        self.updates.add_(1)
        self.multiplier.add_(self.rho.unsqueeze(-1) * regret * (self.updates % self.update_every == 0).unsqueeze(-1))
        self.rho.add_(self.rho_growth * (self.updates % self.rho_every == 0))
