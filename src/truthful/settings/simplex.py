"""Valuations that are uniform on a simplex: with two items, a triangle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from truthful.settings.base import Setting
from truthful.settings.optima import simplex_optimum
from truthful.settings.optimum import Optimum
from truthful.settings.regions import Polygon
from truthful.shapes import Float


class Simplex(Setting):
    """Each bidder's values uniform on {v >= 0 : sum_j v_j <= high}, independent over bidders.

    Args:
        n_bidders: number of bidders n.
        n_items: number of items m.
        high: the largest sum of a bidder's values.
        demand: `additive` or `unit`.
    """

    convex_support = True
    exchangeable_bidders = True
    exchangeable_items = True

    def __init__(self, n_bidders: int, n_items: int, high: float, demand: str) -> None:
        if isinstance(high, bool) or not isinstance(high, (int, float)) or not 0 < high < math.inf:
            raise ValueError(f"high must be a positive number, got {high!r}")
        super().__init__(n_bidders, n_items, 0.0, high, demand)
        self.total = float(high)

    def quantile(self, unit: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n m"]:
        """Item by item, each value from its law given those before it (Rosenblatt 1952)."""
        left = torch.full_like(unit[..., 0], self.total)
        values = []
        for item in range(self.n_items):
            share = 1 - (1 - unit[..., item]).clamp(0, 1) ** (1 / (self.n_items - item))
            values.append(left * share)
            left = left - values[-1]
        return self.project(torch.stack(values, -1))

    def project(self, values: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n m"]:
        """The nearest point: negative values to 0, and if too much is left the same off every item (Held et al. 1974).

        The sum of what is moved ends a rounding below `high`, so that what is projected stays where it is.
        """
        positive = values.clamp_min(0)
        ranked = values.sort(-1, descending=True).values
        count = torch.arange(1, self.n_items + 1, device=values.device)
        levels = (ranked.cumsum(-1) - self.total) / count  # what to take off if so many items stay positive
        stay = (ranked > levels).sum(-1, keepdim=True).clamp_min(1)
        onto = (values - levels.gather(-1, stay - 1)).clamp_min(0)
        onto = onto * (1 - 2 * self.n_items * torch.finfo(values.dtype).eps)
        return torch.where(positive.sum(-1, keepdim=True) <= self.total, positive, onto)

    def polygons(self, bidder: int) -> list[Polygon]:
        """With two items a triangle."""
        if self.n_items != 2:
            return super().polygons(bidder)
        return [[(0.0, 0.0), (self.total, 0.0), (0.0, self.total)]]

    def density(self, values: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b"]:
        """m!/high^m for each bidder, inside."""
        inside = (values >= 0).all(-1) & (values.sum(-1) <= self.total)
        each = math.factorial(self.n_items) / self.total**self.n_items
        return inside.all(-1).to(values) * each**self.n_bidders

    @property
    def optimum(self) -> Optimum | None:
        """One additive bidder: the bundle."""
        return simplex_optimum(self.n_bidders, self.n_items, self.total, self.demand)

    def describe(self) -> str:
        """The simplex."""
        return f"each bidder's values uniform on v >= 0 with a sum of at most {self.total:g}"
