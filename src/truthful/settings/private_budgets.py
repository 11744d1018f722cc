"""Bidders who cannot pay more than they have."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from truthful.laws import Law
from truthful.settings.base import Setting
from truthful.settings.marginals import broadcast_laws, densities, value_by_value
from truthful.settings.optima import budgeted_optimum
from truthful.settings.optimum import Optimum
from truthful.shapes import Float


class PrivateBudgets(Setting):
    """Another setting's values, and for each bidder a private budget of his own law (Feng et al. 2018).

    A bidder's type is his values and his budget, and he may lie about all of it, upwards and downwards. A payment above
    his true budget is worth less to him than anything. Budgets are independent of the values and of each other.

    Args:
        values: the setting of the values, of a known law.
        budget: a law, or one law a bidder.
    """

    budgeted = True

    def __init__(self, values: Setting, budget: Law | Sequence[Law]) -> None:
        if values.budgeted or values.features or values.observed is not None:
            raise ValueError(
                "private budgets are for a setting of values alone, of a known law, "
                f"got a {type(values).__name__} that has more"
            )
        super().__init__(values.n_bidders, values.n_items, 0.0, 1.0, values.demand)
        rows = budget if isinstance(budget, Law) else [[law] for law in budget]
        self._values, self._budgets = values, broadcast_laws(rows, values.n_bidders, 1)
        ends = ([[getattr(row[0], end)] for row in self._budgets] for end in ("low", "high"))
        low, high = (torch.tensor(end, dtype=torch.float64) for end in ends)
        self.low, self.high = torch.cat([values.low, low], -1), torch.cat([values.high, high], -1)
        self.convex_support = values.convex_support and all(row[0].convex for row in self._budgets)
        self.exchangeable_bidders = values.exchangeable_bidders and len(set(self._budgets)) == 1
        self.exchangeable_items = values.exchangeable_items

    def quantile(self, unit: Float[Tensor, "*b n r"]) -> Float[Tensor, "*b n r"]:
        """Values as in their setting, then budgets by their laws' quantile functions."""
        own, budget = self._apart(unit)
        budget = value_by_value(self._budgets, lambda law, part: law.quantile(part), budget)
        return torch.cat([self._values.quantile(own), budget], -1)

    def project(self, values: Float[Tensor, "*b n r"]) -> Float[Tensor, "*b n r"]:
        """Values in their setting, budgets each to the nearest point of its law's support."""
        own, budget = self._apart(values)
        budget = value_by_value(self._budgets, lambda law, part: law.project(part), budget)
        return torch.cat([self._values.project(own), budget], -1)

    def density(self, values: Float[Tensor, "*b n r"]) -> Float[Tensor, "*b"] | None:
        """The values' density times the budgets'; None if one has none."""
        own, budget = self._apart(values)
        of_values, of_budgets = self._values.density(own), densities(self._budgets, budget)
        return None if of_values is None or of_budgets is None else of_values * of_budgets.prod(-1).prod(-1)

    @property
    def optimum(self) -> Optimum | None:
        """Known for one bidder and one item, both numbers uniform from 0."""
        if (self.n_bidders, self.n_items) != (1, 1) or self._values.laws is None:
            return None
        return budgeted_optimum(self._values.laws[0][0], self._budgets[0][0])

    def _apart(self, numbers: Float[Tensor, "*b n r"]) -> tuple[Float[Tensor, "*b n m"], Float[Tensor, "*b n 1"]]:
        return numbers[..., : self.n_items], numbers[..., self.n_items :]

    def describe(self) -> str:
        """The values' law and the budgets'."""
        budgets = " or ".join(dict.fromkeys(row[0].describe() for row in self._budgets))
        return f"{self._values.describe()}, private budgets {budgets}"
