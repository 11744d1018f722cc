"""Quotas: of whatever is sold, everyone gets a share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from truthful.auction import Outcome
from truthful.constraints.base import Constraint, share
from truthful.duals import Dual
from truthful.settings import Setting
from truthful.shapes import Float

UNSOLD = 1e-8
"""Added to every allocation: an item that is not sold at all counts as shared evenly (as in the released code)."""


class Quota(Constraint):
    """Every bidder has at least the share `least` of what is sold of every item: min over i, j of x_ij / sum_i x_ij.

    The quota of PreferenceNet (Peri et al. 2021). The violation is what the smallest share lacks.

    Args:
        setting, tolerance, dual: as in every constraint.
        least: the smallest share, at most 1 / n_bidders.
    """

    def __init__(self, setting: Setting, tolerance: float, dual: Callable[..., Dual], least: float) -> None:
        super().__init__(setting, tolerance, dual)
        self.least = share("least", least, 1 / self.n_bidders, f", as there are {self.n_bidders} bidders")

    def forward(self, values: Float[Tensor, "*b n c"], outcome: Outcome) -> Float[Tensor, "*b"]:
        """What the smallest share lacks."""
        amounts = outcome.allocation + UNSOLD
        return (self.least - (amounts / amounts.sum(-2, keepdim=True)).amin((-2, -1))).relu()
