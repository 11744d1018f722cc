"""From a network's scores to an outcome: feasible and individually rational whatever the scores are."""

from __future__ import annotations

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.shapes import Float


def outcome(
    bids: Float[Tensor, "*b n m"],
    over_bidders: Float[Tensor, "*b n+1 m"],
    over_items: Float[Tensor, "*b n m+1"] | None,
    payment: Float[Tensor, "*b n"],
) -> Outcome:
    """The outcome of scores.

    Additive demand: for each item a softmax over the bidders and "nobody". Unit demand: the elementwise minimum of that
    and of a softmax over items and "nothing", so that rows and columns sum to at most 1. A bidder pays a sigmoid
    fraction of the reported value of what he gets.

    Args:
        bids: not negative.
        over_bidders: the last row is nobody's.
        over_items: the last column is that of nothing; None for additive demand.
        payment: logit of the fraction.
    """
    allocation = over_bidders.softmax(-2)[..., :-1, :]
    if over_items is not None:
        allocation = torch.minimum(allocation, over_items.softmax(-1)[..., :-1])
    return Outcome(allocation, torch.sigmoid(payment) * (bids * allocation).sum(-1))
