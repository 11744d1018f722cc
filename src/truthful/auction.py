"""Outcomes, utilities and unilateral deviations: the definitions that everything else is built on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.shapes import Float


@dataclass(frozen=True)
class Outcome:
    """What a direct mechanism does with one profile of bids (or a batch of them)."""

    allocation: Float[Tensor, "*b n m"]
    """Probability that bidder i receives item j. Columns sum to at most 1; under unit demand rows do, too."""
    payment: Float[Tensor, "*b n"]
    """Expected payment of bidder i."""


def utility(values: Float[Tensor, "*b n m"], outcome: Outcome) -> Float[Tensor, "*b n"]:
    """Expected quasi-linear utility: sum over j of v_ij x_ij, less the payment.

    Holds for additive values, and for unit demand because no bidder is then allocated more than one item in total
    (paper, section 2.1).
    """
    return (values * outcome.allocation).sum(-1) - outcome.payment


def revenue(outcome: Outcome) -> Float[Tensor, "*b"]:
    """Expected revenue of each profile: the sum of payments over bidders."""
    return outcome.payment.sum(-1)


def deviate(values: Float[Tensor, "*b n m"], misreport: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n n m"]:
    """All unilateral deviations: in profile i of axis -3 bidder i reports `misreport[i]`, the others their values."""
    deviator = torch.eye(values.shape[-2], dtype=torch.bool, device=values.device).unsqueeze(-1)
    return torch.where(deviator, misreport.unsqueeze(-2), values.unsqueeze(-3))


def deviation_outcome(
    mechanism: Callable[[Tensor], Outcome],
    values: Float[Tensor, "*#b n m"],
    misreport: Float[Tensor, "*#b n m"],
) -> Outcome:
    """What each bidder gets and pays if he alone reports `misreport[i]`.

    All n deviations of all profiles go through the mechanism in one batch. `values` and `misreport` broadcast over
    the leading axes, so that a whole axis of candidate misreports can be scored against one batch of profiles.
    """
    outcome = mechanism(deviate(*torch.broadcast_tensors(values, misreport)))
    own_allocation = outcome.allocation.diagonal(dim1=-3, dim2=-2).transpose(-1, -2)
    return Outcome(own_allocation, outcome.payment.diagonal(dim1=-2, dim2=-1))


def deviation_utility(
    mechanism: Callable[[Tensor], Outcome],
    values: Float[Tensor, "*#b n m"],
    misreport: Float[Tensor, "*#b n m"],
) -> Float[Tensor, "*#b n"]:
    """u_i(v_i; (b_i, v_-i)): what each bidder's true utility is if he alone reports `misreport[i]`."""
    values, misreport = torch.broadcast_tensors(values, misreport)
    return utility(values, deviation_outcome(mechanism, values, misreport))
