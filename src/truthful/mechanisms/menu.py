"""One bidder: menus of lotteries, and the straight-jacket auction."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.laws import Uniform
from truthful.mechanisms.base import Mechanism
from truthful.mechanisms.menu_revenue import expected_price
from truthful.mechanisms.quadrature import laws_of_items
from truthful.settings.base import Setting
from truthful.shapes import Float


class FromMenu(Mechanism):
    """One bidder chooses the best of finitely many lotteries at their prices, or nothing for nothing."""

    strategyproof = "one bidder chooses from a fixed menu (taxation principle)"

    @abstractmethod
    def menu(self) -> tuple[Float[Tensor, "k m"], Float[Tensor, "k"]]:
        """The chances and the price of each entry, nothing for nothing among them.

        Of equally good entries the bidder takes the first.
        """

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids."""
        chances, prices = (column.to(bids) for column in self.menu())
        choice = (bids @ chances.T - prices).argmax(-1)
        return Outcome(chances[choice], prices[choice])

    @torch.no_grad()
    def exact_revenue(self, setting: Setting) -> float | None:
        """One or two items with densities: by quadrature over the polygons of types; or a sum over discrete values."""
        exact = copy.deepcopy(self).double()
        return expected_price(exact, setting, *exact.menu())

    def exported(self) -> tuple[str, dict[str, Any]] | None:
        """The menu."""
        chances, prices = self.menu()
        return "menu", {"allocations": chances.tolist(), "prices": prices.tolist()}


class Menu(FromMenu):
    """A menu that is given, or that of the setting's known optimum.

    Every truthful auction with one bidder is a menu. Of equally good entries he takes the dearest.

    Args:
        setting: has one bidder.
        entries: lists of the chance of each item and the price, [chance, ..., price]; null: the menu of the setting's
            optimum, where it is known.
    """

    allocations: Tensor
    prices: Tensor

    def __init__(self, setting: Setting, entries: Sequence[Sequence[float | int]] | None) -> None:
        super().__init__(**setting.shape)
        require_one_bidder(self)
        self._found = entries is None
        if entries is None:
            optimum = setting.optimum
            if optimum is None or optimum.menu is None:
                raise ValueError("entries=null needs a setting whose optimal menu is known; give entries")
            entries = [[*chances, price] for chances, price in optimum.menu]
        table = self._checked(entries)
        table = torch.cat([table[table[:, -1].argsort(descending=True, stable=True)], torch.zeros_like(table[:1])])
        self.register_buffer("allocations", table[:, :-1].contiguous())
        self.register_buffer("prices", table[:, -1].contiguous())

    def menu(self) -> tuple[Float[Tensor, "k m"], Float[Tensor, "k"]]:
        """As given, the dearest first, the free nothing last."""
        return self.allocations, self.prices

    @property
    def fitted(self) -> dict[str, Any]:
        """The entries, if they are those of the setting's optimum."""
        if not self._found:
            return {}
        return {"entries": torch.cat([self.allocations, self.prices[:, None]], 1)[:-1].tolist()}

    def _checked(self, entries: object) -> Tensor:
        expected = f"entries must be lists of {self.n_items} chances and a price"
        try:
            table = torch.tensor(entries, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"{expected}, got {entries!r}") from None
        if table.ndim != 2 or table.shape[1] != self.n_items + 1 or not bool(table.isfinite().all()):
            raise ValueError(f"{expected}, got {entries!r}")
        chances, most = table[:, :-1], 1 + 1e-12
        feasible = bool((table >= 0).all()) and bool((chances <= most).all())
        if not feasible or (self.demand == "unit" and bool((chances.sum(1) > most).any())):
            limit = " that sum to at most 1" if self.demand == "unit" else ""
            raise ValueError(f"entries need chances from 0 to 1{limit} and prices of at least 0, got {entries!r}")
        return table


class StraightJacket(Mechanism):
    """One price for any k items, k = 1, ..., m: the straight-jacket auction (Giannakopoulos and Koutsoupias 2014).

    The optimum for one additive bidder with up to six items of i.i.d. U[0, h] values.

    Args:
        setting: has one bidder with additive, i.i.d. U[0, h] values.
    """

    strategyproof = "one bidder chooses a number of items at fixed prices (taxation principle)"
    prices: Tensor

    def __init__(self, setting: Setting) -> None:
        from truthful.settings.straight_jacket import straight_jacket_prices

        super().__init__(**setting.shape)
        require_one_bidder(self)
        law = setting.laws[0][0] if setting.laws and setting.independent and setting.exchangeable_items else None
        if not isinstance(law, Uniform) or law.low != 0 or self.demand != "additive":
            raise ValueError(
                "StraightJacket needs one additive bidder with i.i.d. values, uniform on [0, h]; got "
                f"{type(setting).__name__} with {self.demand} demand, low {setting.low.tolist()}, "
                f"high {setting.high.tolist()}"
            )
        prices = torch.tensor(straight_jacket_prices(self.n_items), dtype=torch.float64)
        self.law = law
        self.register_buffer("prices", law.high * prices)

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids."""
        bid = bids[..., 0, :]
        prices = torch.cat([self.prices.new_zeros(1), self.prices]).to(bids)
        ranked, order = torch.sort(bid, dim=-1, descending=True, stable=True)
        worth = torch.cat([torch.zeros_like(bid[..., :1]), ranked.cumsum(-1)], -1)
        count = (worth - prices).argmax(-1)
        rank = order.argsort(-1)
        allocation = (rank < count.unsqueeze(-1)).to(bids)
        return Outcome(allocation.unsqueeze(-2), prices[count].unsqueeze(-1))

    def exact_revenue(self, setting: Setting) -> float | None:
        """From volumes of polymatroids, for the setting that this auction was made for."""
        from truthful.settings.straight_jacket import straight_jacket_revenue

        columns = laws_of_items(self, setting)
        if columns is None or not setting.independent or set(columns) != {(self.law,)}:
            return None
        return self.law.high * straight_jacket_revenue(self.n_items)

    @property
    def fitted(self) -> dict[str, Any]:
        """The price of any k items, k = 1, ..., m."""
        return {"prices": self.prices.tolist()}


def require_one_bidder(mechanism: Mechanism) -> None:
    """Raise ValueError for several."""
    if mechanism.n_bidders != 1:
        raise ValueError(f"{type(mechanism).__name__} is for one bidder, got {mechanism.n_bidders}")
