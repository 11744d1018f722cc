"""Posted prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.laws import Law
from truthful.laws.quadrature import smooth_pieces
from truthful.mechanisms.base import Mechanism
from truthful.mechanisms.classical import one_an_item
from truthful.mechanisms.cma_es import maximise
from truthful.mechanisms.quadrature import (
    laws_of_items,
    over_items,
    posted_price_revenue,
    revenue_over_atoms,
    sequential_revenue,
)
from truthful.settings.base import Setting
from truthful.shapes import Float


class PostedPrice(Mechanism):
    """A price on each item; the bidders come in order of their index.

    Additive: each item goes to the first bidder who bids at least its price. Unit demand: each bidder takes the item
    with the largest bid less price among those that are left, if that is not negative, the first one of equals.
    Truthful because nobody's bid moves a price or what is left when he comes.

    Args:
        setting: gives the shape, the demand and, for `prices: null`, the laws.
        prices: one price, or one an item; null: those that earn most, where values are independent.
    """

    strategyproof = "posted prices: each bidder, in a fixed order, takes what is best for him at prices he cannot move"
    prices: Tensor

    def __init__(self, setting: Setting, prices: float | Sequence[float] | None) -> None:
        super().__init__(**setting.shape)
        self._found = prices is None
        found = (
            one_an_item("prices", 0.0, self.n_items) if prices is None else one_an_item("prices", prices, self.n_items)
        )
        self.register_buffer("prices", found)
        if prices is None:
            self.prices = self._best_prices(setting)

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids."""
        prices = self.prices.to(bids)
        left = torch.ones_like(bids[..., 0, :], dtype=torch.bool)
        rows = []
        for bid in bids.unbind(-2):
            wanted = left & (bid >= prices)
            if self.demand == "unit":
                utility = torch.where(wanted, bid - prices, -torch.inf)
                favourite = torch.zeros_like(wanted).scatter(-1, utility.argmax(-1, keepdim=True), True)
                wanted = wanted & favourite
            left = left & ~wanted
            rows.append(wanted)
        allocation = torch.stack(rows, -2).to(bids)
        return Outcome(allocation, (allocation * prices).sum(-1))

    def exact_revenue(self, setting: Setting) -> float | None:
        """Additive: a formula. Unit demand: by quadrature, up to six items; or a sum over discrete values."""
        return self._revenue(setting, self.prices.tolist())

    @property
    def fitted(self) -> dict[str, Any]:
        """The prices, if they were found for the setting."""
        return {"prices": self.prices.tolist()} if self._found else {}

    def _revenue(self, setting: Setting, prices: list[float]) -> float | None:
        columns = laws_of_items(self, setting)
        if columns is None:
            return None
        if self.demand == "additive":
            return over_items(columns, lambda item, laws: posted_price_revenue(laws, prices[item]))
        if not setting.independent:
            return None
        assert setting.laws is not None
        found = sequential_revenue(setting.laws, prices)
        return revenue_over_atoms(self, setting) if found is None else found

    def _best_prices(self, setting: Setting) -> Float[Tensor, "m"]:
        columns = laws_of_items(self, setting)
        if columns is None:
            raise ValueError(
                f"prices=null needs independent values whose laws are known, got {type(setting).__name__}; give prices"
            )
        alone = torch.stack([_best_price(laws) for laws in columns])
        if self.demand == "additive" or self.n_items == 1:
            return alone
        if sequential_revenue(setting.laws or (), alone.tolist()) is None:
            raise ValueError(
                f"prices=null under unit demand needs values with densities and up to 6 items, got "
                f"{type(setting).__name__} with {self.n_items} items; give prices"
            )

        def earned(logarithms: Tensor) -> float:
            return self._revenue(setting, logarithms.exp().tolist()) or 0.0

        return maximise(earned, alone.log(), 0.1, torch.Generator().manual_seed(0)).exp()


def _best_price(laws: Sequence[Law]) -> Float[Tensor, ""]:
    """The price of one item that earns most: the best of a grid, refined around it; a jump is met from the left."""
    points = smooth_pieces(laws)
    fine, best = points, 0
    for _ in range(8):
        fine = torch.cat([points, *(torch.lerp(points[:-1], points[1:], k / 8) for k in range(1, 8))]).unique()
        earned = torch.tensor([posted_price_revenue(laws, price) for price in fine.tolist()], dtype=torch.float64)
        best = int(earned.argmax())
        points = fine[max(0, best - 2) : best + 3]
    return fine[best]
