"""A regret budget that means the same in every regret mode: one on what audits find, not on what training sees."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from truthful.errors import whole
from truthful.schedules import AnnealedBudget, BudgetSchedule

FACTORS = (1e-6, 10.0)
"""Training's budget stays within these shares of the audited one."""
LARGEST_LEAD = math.log(10.0)
"""How far it can be from what training finds, as a logarithm."""
SETTLING = 2.0
"""Regret falls by itself while the learning rate does, and then hardly rises again: so long an audit may find more, by
this times the share of the largest rate that is still to be lost. (At (e) it fell by a factor of 1.4 from the share .18
on, by 1.2 from .1, by 1.05 from .025.)"""
SMALLEST_SHARE = 0.15
"""The dual is taken to close at least this share of a gap between two audits: a multiplier that was led too far, while
the network followed it slowly, is as slow to come back."""
COARSE = 4
"""While the budget is falling an audit has so many times fewer profiles: the network then moves more than they err."""
FLOOR = 1e-9
"""Smallest ratio that a logarithm sees."""


class CalibratedBudget(nn.Module, BudgetSchedule):
    """R_max for the *audited* (sum of regret over bidders)/revenue, annealed as by `AnnealedBudget`.

    An audit finds more regret than training's search, by a ratio that depends on the regret mode and changes while the
    network learns. So now and then an audit on held-out profiles says by how much the audited ratio is off, and
    training gets the budget with which the dual will have closed the share `gain` of that gap, on a logarithmic scale,
    by the next audit. A dual that moves fast needs a budget just so far from what training finds; one that moves
    slowly, as the budget dual does when its multiplier is large, one much further away.

    Args:
        start: audited R_max at the first iteration.
        end: the final audited budget, at most `start`.
        fraction: share of training after which it is reached.
        every: share of training between audits.
        samples: profiles of each, fresh ones: an error that the same profiles make every time would never average out.
        gain: share of the gap to close until the next audit, above 0 and at most 1.
    """

    uses_audits = True
    factor: Tensor
    """Training's budget over the audited one."""
    audited: Tensor
    """What the latest audit found; 0 before the first."""

    def __init__(self, start: float, end: float, fraction: float, every: float, samples: int, gain: float) -> None:
        super().__init__()
        self.shape = AnnealedBudget(start, end, fraction)
        self.start, self.end, self.fraction = start, end, fraction
        for name, share in (("every", every), ("gain", gain)):
            if not 0 < share <= 1:
                raise ValueError(f"rmax.{name} must be above 0 and at most 1, got {share!r}")
        self.every, self.samples, self.gain = every, whole("rmax.samples", samples, 2), gain
        self.register_buffer("factor", torch.tensor(1.0))
        self.register_buffer("audited", torch.tensor(0.0))

    def __call__(self, progress: float) -> float:
        """Training's budget after the share `progress` of all iterations, until the next correction."""
        return self.shape(progress) * float(self.factor)

    def next_correction(self, iteration: int, iterations: int) -> int:
        """The next multiple of the share `every`, or the end, which is too late to be corrected."""
        every = max(1, round(self.every * iterations))
        return min(iterations, (iteration // every + 1) * every)

    def correct(
        self, progress: float, rate_left: float, training: float, pace: float, audit: Callable[[int], float]
    ) -> None:
        """Audit, and choose training's budget until the next audit."""
        due = self.shape(progress)
        aim = due * (1 + SETTLING * rate_left)
        audited = audit(self.samples if progress >= self.fraction else max(2, self.samples // COARSE))
        self.audited.fill_(audited)
        wanted = -self.gain * math.log(max(audited, FLOOR) / aim)
        lead = wanted / max(-math.expm1(-pace * self.every), SMALLEST_SHARE)
        budget = max(training, FLOOR) * math.exp(max(-LARGEST_LEAD, min(LARGEST_LEAD, lead)))
        self.factor.fill_(max(FACTORS[0], min(FACTORS[1], budget / due)))

    def metrics(self) -> dict[str, float]:
        """The factor, and what the latest audit found."""
        return {"rmax_factor": float(self.factor), "audited_ratio": float(self.audited)}
