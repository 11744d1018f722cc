"""Item-by-item auctions, as baselines with known incentives. For additive values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from truthful.auction import Outcome
from truthful.mechanisms.base import Mechanism
from truthful.shapes import Float


class SecondPrice(Mechanism):
    """Each item to its highest bidder at or above the reserve, for the larger of reserve and second-highest bid.

    DSIC and individually rational under additive values (Vickrey 1961; Myerson 1981 for the reserve). A tie goes to
    the bidder with the lower index.

    Args:
        n_bidders, n_items, demand: those of the setting; `demand` must be additive.
        reserve: the lowest price of each item.
    """

    strategyproof = "second price with a reserve, item by item, additive values: Vickrey 1961, Myerson 1981"

    def __init__(self, n_bidders: int, n_items: int, demand: str, reserve: float) -> None:
        super().__init__(n_bidders, n_items, demand)
        _require_additive(self)
        self.reserve = reserve

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids."""
        allocation = _highest_bidder(bids, self.reserve)
        others = torch.where(allocation > 0, -torch.inf, bids).amax(-2)
        price = others.clamp_min(self.reserve)
        return Outcome(allocation, (allocation * price.unsqueeze(-2)).sum(-1))


class FirstPrice(Mechanism):
    """Each item to its highest bidder at or above the reserve, who pays his bid. Not incentive compatible.

    Under truthful bids the winner of an item could gain his value less the larger of reserve and second-highest bid.

    Args:
        n_bidders, n_items, demand: those of the setting; `demand` must be additive.
        reserve: the lowest price of each item.
    """

    def __init__(self, n_bidders: int, n_items: int, demand: str, reserve: float) -> None:
        super().__init__(n_bidders, n_items, demand)
        _require_additive(self)
        self.reserve = reserve

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids."""
        allocation = _highest_bidder(bids, self.reserve)
        return Outcome(allocation, (allocation * bids).sum(-1))


def _require_additive(mechanism: Mechanism) -> None:
    if mechanism.demand != "additive":
        raise ValueError(
            f"{type(mechanism).__name__} sells item by item, which needs additive demand, got {mechanism.demand!r}"
        )


def _highest_bidder(bids: Float[Tensor, "*b n m"], reserve: float) -> Float[Tensor, "*b n m"]:
    winner = one_hot(bids.argmax(-2), bids.shape[-2]).transpose(-1, -2).to(bids)
    return winner * (bids >= reserve)
