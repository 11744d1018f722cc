"""Outcomes, utilities and unilateral deviations: the definitions that everything else is built on.

A profile has a row for each bidder, his type: c numbers, of which he reports the first r. The first m are his values of
the items; a private budget may follow. What he does not report is public: a context. Mostly c = r = m.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.shapes import Float

UNAFFORDABLE = -1e6
"""Utility of an outcome that costs more than a bidder has, less what he is short of.

Finite, so that differences of two are numbers; with a slope, by which a search finds back to what he can pay.
"""

ROUNDING = 1e-6
"""Share of a budget by which a payment may exceed it: the best lie often costs all of it, in either precision."""


@dataclass(frozen=True)
class Outcome:
    """What a direct mechanism does with one profile of bids (or a batch of them)."""

    allocation: Float[Tensor, "*b n m"]
    """Probability that bidder i receives item j. Columns sum to at most 1; under unit demand rows do, too."""
    payment: Float[Tensor, "*b n"]
    """Expected payment of bidder i."""
    budgeted: bool = False
    """Whether the number after a bidder's values is his budget, which no payment may exceed."""


def utility(values: Float[Tensor, "*b n c"], outcome: Outcome) -> Float[Tensor, "*b n"]:
    """Expected quasi-linear utility: sum over j of v_ij x_ij, less the payment; UNAFFORDABLE where a budget is less.

    Holds for additive values, and for unit demand because no bidder is then allocated more than one item in total
    (paper, section 2.1).
    """
    items = outcome.allocation.shape[-1]
    worth = (values[..., :items] * outcome.allocation).sum(-1) - outcome.payment
    if not outcome.budgeted:
        return worth
    budget = values[..., items]
    short = outcome.payment - budget
    return torch.where(short > ROUNDING * budget, UNAFFORDABLE - short, worth)


def revenue(outcome: Outcome) -> Float[Tensor, "*b"]:
    """Expected revenue of each profile: the sum of payments over bidders."""
    return outcome.payment.sum(-1)


def with_reports(values: Float[Tensor, "*b n c"], reports: Float[Tensor, "*b n r"]) -> Float[Tensor, "*b n c"]:
    """The profiles in which everyone reports `reports`; what is public stays."""
    reported = reports.shape[-1]
    return reports if values.shape[-1] == reported else torch.cat([reports, values[..., reported:]], -1)


def deviate(values: Float[Tensor, "*b n c"], misreport: Float[Tensor, "*b n r"]) -> Float[Tensor, "*b n n c"]:
    """All unilateral deviations: in profile i of axis -3 bidder i reports `misreport[i]`, the others their values."""
    misreport = with_reports(values, misreport)
    deviator = torch.eye(values.shape[-2], dtype=torch.bool, device=values.device).unsqueeze(-1)
    return torch.where(deviator, misreport.unsqueeze(-2), values.unsqueeze(-3))


def aligned(
    values: Float[Tensor, "*#b n c"], misreport: Float[Tensor, "*#b n r"]
) -> tuple[Float[Tensor, "*b n c"], Float[Tensor, "*b n r"]]:
    """Both with the same leading axes."""
    leading = torch.broadcast_shapes(values.shape[:-1], misreport.shape[:-1])
    return values.expand(*leading, -1), misreport.expand(*leading, -1)


def deviation_outcome(
    mechanism: Callable[[Tensor], Outcome],
    values: Float[Tensor, "*#b n c"],
    misreport: Float[Tensor, "*#b n r"],
) -> Outcome:
    """What each bidder gets and pays if he alone reports `misreport[i]`.

    All n deviations of all profiles go through the mechanism in one batch. `values` and `misreport` broadcast over
    the leading axes, so that a whole axis of candidate misreports can be scored against one batch of profiles.
    """
    outcome = mechanism(deviate(*aligned(values, misreport)))
    own_allocation = outcome.allocation.diagonal(dim1=-3, dim2=-2).transpose(-1, -2)
    return Outcome(own_allocation, outcome.payment.diagonal(dim1=-2, dim2=-1), outcome.budgeted)


def deviation_utility(
    mechanism: Callable[[Tensor], Outcome],
    values: Float[Tensor, "*#b n c"],
    misreport: Float[Tensor, "*#b n r"],
) -> Float[Tensor, "*#b n"]:
    """u_i(v_i; (b_i, v_-i)): what each bidder's true utility is if he alone reports `misreport[i]`."""
    values, misreport = aligned(values, misreport)
    return utility(values, deviation_outcome(mechanism, values, misreport))
