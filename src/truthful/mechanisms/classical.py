"""Item-by-item auctions, as baselines with known incentives. For additive values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from truthful.auction import Outcome
from truthful.mechanisms.base import Mechanism
from truthful.mechanisms.quadrature import first_price_revenue, laws_of_items, over_items, second_price_revenue
from truthful.settings.base import Setting
from truthful.shapes import Float


class SecondPrice(Mechanism):
    """Each item to its highest bidder at or above the reserve, for the larger of reserve and second-highest bid.

    DSIC and individually rational under additive values (Vickrey 1961; Myerson 1981 for the reserve). A tie goes to
    the bidder with the lower index.

    Args:
        n_bidders, n_items, demand: those of the setting; `demand` must be additive.
        reserve: the lowest price of every item, or one an item.
    """

    strategyproof = "second price with a reserve, item by item, additive values: Vickrey 1961, Myerson 1981"
    reserve: Tensor

    def __init__(self, n_bidders: int, n_items: int, demand: str, reserve: float | Sequence[float]) -> None:
        super().__init__(n_bidders, n_items, demand)
        require_additive(self)
        self.register_buffer("reserve", one_an_item("reserve", reserve, n_items))

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids."""
        return second_price(bids, self.reserve.to(bids))

    def exact_revenue(self, setting: Setting) -> float | None:
        """By quadrature, where bidders are independent."""
        columns = laws_of_items(self, setting)
        reserve = self.reserve.tolist()
        if columns is None:
            return None
        return over_items(columns, lambda item, laws: second_price_revenue(laws, reserve[item]))


class FirstPrice(Mechanism):
    """Each item to its highest bidder at or above the reserve, who pays his bid. Not incentive compatible.

    Under truthful bids the winner of an item could gain his value less the larger of reserve and second-highest bid.

    Args:
        n_bidders, n_items, demand: those of the setting; `demand` must be additive.
        reserve: the lowest price of every item, or one an item.
    """

    reserve: Tensor

    def __init__(self, n_bidders: int, n_items: int, demand: str, reserve: float | Sequence[float]) -> None:
        super().__init__(n_bidders, n_items, demand)
        require_additive(self)
        self.register_buffer("reserve", one_an_item("reserve", reserve, n_items))

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids."""
        allocation = _highest_bidder(bids, self.reserve.to(bids))
        return Outcome(allocation, (allocation * bids).sum(-1))

    def exact_revenue(self, setting: Setting) -> float | None:
        """By quadrature, where bidders are independent. Of truthful bids, which nobody has reason to make."""
        columns = laws_of_items(self, setting)
        reserve = self.reserve.tolist()
        if columns is None:
            return None
        return over_items(columns, lambda item, laws: first_price_revenue(laws, reserve[item]))


def second_price(bids: Float[Tensor, "*b n m"], reserve: Float[Tensor, "m"]) -> Outcome:
    """Second price with a reserve, item by item."""
    allocation = _highest_bidder(bids, reserve)
    others = torch.where(allocation > 0, -torch.inf, bids).amax(-2)
    price = torch.maximum(others, reserve)
    return Outcome(allocation, (allocation * price.unsqueeze(-2)).sum(-1))


def require_additive(mechanism: Mechanism) -> None:
    """Raise ValueError for another demand."""
    if mechanism.demand != "additive":
        raise ValueError(
            f"{type(mechanism).__name__} sells item by item, which needs additive demand, got {mechanism.demand!r}"
        )


def one_an_item(name: str, numbers: object, n_items: int) -> Float[Tensor, "{n_items}"]:
    """A price of every item, or one an item, as float64. Raises ValueError if it is neither, negative or infinite."""
    expected = f"{name} must be a number of at least 0, or {n_items} (one an item), got {numbers!r}"
    try:
        tensor = torch.tensor(numbers, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(expected) from None
    if tensor.shape not in ((), (n_items,)) or not bool((tensor >= 0).all()) or not bool(tensor.isfinite().all()):
        raise ValueError(expected)
    return tensor.expand(n_items).clone()


def _highest_bidder(bids: Float[Tensor, "*b n m"], reserve: Float[Tensor, "m"]) -> Float[Tensor, "*b n m"]:
    winner = one_hot(bids.argmax(-2), bids.shape[-2]).transpose(-1, -2).to(bids)
    return winner * (bids >= reserve)
