"""The Vickrey-Clarke-Groves auction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.mechanisms.base import Mechanism
from truthful.mechanisms.classical import one_an_item, second_price
from truthful.mechanisms.matching import best_matching, check_size, largest_weight
from truthful.mechanisms.quadrature import (
    laws_of_items,
    over_items,
    revenue_over_atoms,
    second_price_revenue,
    sequential_revenue,
    two_by_two_matching_revenue,
)
from truthful.settings.base import Setting
from truthful.shapes import Float


class VCG(Mechanism):
    """The efficient allocation; each bidder pays what he costs the others (Vickrey 1961, Clarke 1971, Groves 1973).

    Additive: the second-price auction of each item. Unit demand: a maximum-weight matching (Leonard 1983). With a
    reserve the seller takes part as if each item were worth that much to him.

    Args:
        n_bidders, n_items, demand: those of the setting; unit demand up to 10 bidders or 10 items.
        reserve: what the seller's items are worth to him: one number, or one an item.
    """

    strategyproof = "efficient allocation (with a reserve), externalities as prices: Vickrey 1961, Clarke 1971"
    reserve: Tensor

    def __init__(self, n_bidders: int, n_items: int, demand: str, reserve: float | Sequence[float]) -> None:
        super().__init__(n_bidders, n_items, demand)
        if demand == "unit":
            check_size(n_bidders, n_items)
        self.register_buffer("reserve", one_an_item("reserve", reserve, n_items))

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids."""
        reserve = self.reserve.to(bids)
        if self.demand == "additive":
            return second_price(bids, reserve)
        surplus = torch.where(bids >= reserve, bids - reserve, -torch.inf)
        allocation = best_matching(surplus)
        own = torch.where(allocation > 0, surplus, 0).sum(-1)
        alone = torch.eye(self.n_bidders, dtype=torch.bool, device=bids.device).unsqueeze(-1)
        without = largest_weight(torch.where(alone, -torch.inf, surplus.unsqueeze(-3)))
        cost = without - (own.sum(-1, keepdim=True) - own)
        return Outcome(allocation, cost.clamp_min(0) + (allocation * reserve).sum(-1))

    def exact_revenue(self, setting: Setting) -> float | None:
        """Additive, or one item: by quadrature. Unit demand: with one bidder, with two for two items, or discrete."""
        columns = laws_of_items(self, setting)
        if columns is None:
            return None
        reserve = self.reserve.tolist()
        if self.demand == "additive" or self.n_items == 1:
            return over_items(columns, lambda item, laws: second_price_revenue(laws, reserve[item]))
        assert setting.laws is not None
        found = None
        if self.n_bidders == 1 and setting.independent:
            found = sequential_revenue(setting.laws, reserve)
        elif (self.n_bidders, self.n_items) == (2, 2) and not any(reserve):
            found = two_by_two_matching_revenue(setting.laws)
        return revenue_over_atoms(self, setting) if found is None else found
