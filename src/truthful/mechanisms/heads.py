"""From a network's scores to an outcome: feasible and individually rational whatever the scores are."""

from __future__ import annotations

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.mechanisms.feasible import share
from truthful.shapes import Float


def outcome(
    bids: Float[Tensor, "*b n m"],
    over_bidders: Float[Tensor, "*b n+1 m"],
    over_items: Float[Tensor, "*b n m+1"] | None,
    payment: Float[Tensor, "*b n"],
) -> Outcome:
    """The outcome of scores.

    Chances by softmaxes, over the bidders and "nobody" and, under unit demand, also over items and "nothing"
    (`truthful.mechanisms.feasible`). A bidder pays a sigmoid fraction of the reported value of what he gets.

    Args:
        bids: not negative.
        over_bidders: the last row is nobody's.
        over_items: the last column is that of nothing; None for additive demand.
        payment: logit of the fraction.
    """
    scores = [over_bidders] if over_items is None else [over_bidders, over_items]
    allocation = share(scores, torch.softmax)
    return Outcome(allocation, torch.sigmoid(payment) * (bids * allocation).sum(-1))
