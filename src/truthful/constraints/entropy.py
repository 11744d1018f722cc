"""Diversity: what a bidder gets is spread over the items."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from truthful.auction import Outcome
from truthful.constraints.base import Constraint, share
from truthful.duals import Dual
from truthful.settings import Setting
from truthful.shapes import Float

NOTHING = 1e-8
"""Added to every allocation: a bidder who gets nothing counts as evenly served (as in the released code)."""


class Entropy(Constraint):
    """The entropy of a bidder's shares x_ij / sum_j x_ij, on average over bidders, is at least `least` times log m.

    The entropy of PreferenceNet (Peri et al. 2021), which sums it over bidders; here it is divided by its largest value
    and so runs from 0, one item each, to 1, equal amounts of all. The violation is what it lacks.

    Args:
        setting, tolerance, dual: as in every constraint.
        least: the smallest entropy, at most 1.
    """

    def __init__(self, setting: Setting, tolerance: float, dual: Callable[..., Dual], least: float) -> None:
        super().__init__(setting, tolerance, dual)
        if self.n_items < 2:
            raise ValueError("entropy is over items, and there is only 1")
        self.least = share("least", least)

    def forward(self, values: Float[Tensor, "*b n c"], outcome: Outcome) -> Float[Tensor, "*b"]:
        """What the mean entropy lacks."""
        amounts = outcome.allocation + NOTHING
        shares = amounts / amounts.sum(-1, keepdim=True)
        entropy = -(shares * shares.log()).sum(-1).mean(-1)
        return (self.least - entropy / math.log(self.n_items)).relu()
