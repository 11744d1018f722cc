"""From a network's scores to an outcome: feasible and individually rational whatever the scores are."""

from __future__ import annotations

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.mechanisms.feasible import share
from truthful.shapes import Float


def outcome(
    bids: Float[Tensor, "*b n m"],
    scores: list[Tensor],
    payment: Float[Tensor, "*b n"],
) -> Outcome:
    """The outcome of scores.

    Chances by softmaxes, over the bidders and "nobody" and, under unit demand, also over items and "nothing"
    (`truthful.mechanisms.feasible`). A bidder pays a sigmoid fraction of the reported value of what he gets.

    Args:
        bids: not negative.
        scores: of the allocation, as `feasible.share` takes them.
        payment: logit of the fraction.
    """
    allocation = share(scores, torch.softmax)
    return Outcome(allocation, torch.sigmoid(payment) * (bids * allocation).sum(-1))
