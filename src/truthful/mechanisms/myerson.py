"""Myerson's auction (1981) of each item on its own, and of all items as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.laws import Law
from truthful.laws.curve import MonotoneCurves
from truthful.laws.ironing import IronedLaw, iron_all, myerson_integral
from truthful.laws.sums import ConvolvedSum, DiscreteSum, sum_law
from truthful.mechanisms.base import Mechanism
from truthful.mechanisms.classical import require_additive
from truthful.mechanisms.quadrature import laws_of_items
from truthful.settings.base import Setting
from truthful.shapes import Float

ITEMWISE, BUNDLED = 1e-8, 1e-7
"""Shares of the revenue to which it is known, where it is said to be."""

CAUTION = 10
"""The error of an extrapolation is taken for so many times its difference from the one before."""


class ItemwiseMyerson(Mechanism):
    """Each item to the bidder with the highest ironed virtual value, if that is not negative (Myerson 1981).

    He pays the smallest value with which he would still win. Among equal virtual values the lowest index wins. It is
    the optimum for one item, and for several the best of auctions that sell each on its own, if bidders are
    independent; DSIC and individually rational on any setting.

    Args:
        setting: gives the (marginal) laws of the values; `demand` must be additive.
    """

    strategyproof = "item by item to the highest ironed virtual value, at the threshold; additive values: Myerson 1981"

    def __init__(self, setting: Setting) -> None:
        super().__init__(**setting.shape)
        require_additive(self)
        self.laws = _laws(self, setting)
        self.curves, self._reserves = _tables([list(row) for row in self.laws])

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids."""
        allocation, price = _sell(self.curves, bids)
        return Outcome(allocation, price.sum(-1))

    def exact_revenue(self, setting: Setting) -> float | None:
        """Myerson's integral, item by item, for independent bidders of the laws that this auction was made for.

        None where it is not known to 1e-8 of it.
        """
        columns = laws_of_items(self, setting)
        if columns is None or setting.laws != self.laws:
            return None
        known = {laws: myerson_integral(laws) for laws in dict.fromkeys(columns)}  # equal columns once
        earned, error = (math.fsum(known[laws][k] for laws in columns) for k in (0, 1))
        return earned if error <= ITEMWISE * earned else None

    @property
    def fitted(self) -> dict[str, Any]:
        """The monopoly reserves, one row a bidder."""
        return {"reserves": self._reserves}


class BundledMyerson(Mechanism):
    """All items as one, to the bidder with the highest ironed virtual value of the sum of his values (Myerson 1981).

    The law of the sum is exact for uniform and for discrete values; for other densities it is convolved on a grid.

    Args:
        setting: gives the laws of the values, which must be independent; `demand` must be additive.
    """

    slack: Tensor
    """Added to each bidder's sum, so that rounding does not take a sum of discrete values below its atom."""
    strategyproof = "all items as one, to the highest ironed virtual value, at the threshold: Myerson 1981"

    def __init__(self, setting: Setting) -> None:
        super().__init__(**setting.shape)
        require_additive(self)
        self.laws = _laws(self, setting)
        if not setting.independent:
            raise ValueError(
                f"BundledMyerson needs independent values, for the law of a bidder's sum of them, got "
                f"{type(setting).__name__}"
            )
        distinct = {row: sum_law(row) for row in dict.fromkeys(self.laws)}
        self.sums = [distinct[row] for row in self.laws]
        self.curves, self._reserves = _tables([[law] for law in self.sums])
        slack = [law.slack if isinstance(law, DiscreteSum) else 0.0 for law in self.sums]
        self.register_buffer("slack", torch.tensor(slack, dtype=torch.float64).unsqueeze(-1))

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids."""
        total = bids.sum(-1, keepdim=True)
        allocation, price = _sell(self.curves, total + self.slack.to(total))
        return Outcome(allocation.expand(bids.shape), price.squeeze(-1))

    def exact_revenue(self, setting: Setting) -> float | None:
        """Myerson's integral over the laws of the sums; None where it is not known to 1e-7 of it."""
        columns = laws_of_items(self, setting)
        if columns is None or not setting.independent or setting.laws != self.laws:
            return None
        earned, error = _extrapolated(self.sums)
        return earned if error <= BUNDLED * earned else None

    @property
    def fitted(self) -> dict[str, Any]:
        """The monopoly reserve of each bidder for the bundle."""
        return {"reserves": [row[0] for row in self._reserves]}


def _extrapolated(sums: Sequence[Law]) -> tuple[float, float]:
    """Myerson's integral and its error, for grids of no width by Richardson's extrapolation of three grids."""
    if not any(isinstance(law, ConvolvedSum) for law in sums):
        return myerson_integral(sums)

    def earned(coarser: int) -> float:
        grids = {law: law.coarser(coarser) if isinstance(law, ConvolvedSum) else law for law in dict.fromkeys(sums)}
        return myerson_integral([grids[law] for law in sums])[0]

    quarter, half, full = (earned(coarser) for coarser in (4, 2, 1))
    before, after = half + (half - quarter) / 3, full + (full - half) / 3
    return after, CAUTION * abs(after - before)


def _laws(mechanism: Mechanism, setting: Setting) -> tuple[tuple[Law, ...], ...]:
    if setting.laws is None:
        raise ValueError(
            f"{type(mechanism).__name__} needs a setting that knows the laws of its values, got "
            f"{type(setting).__name__}"
        )
    return setting.laws


def _tables(rows: list[list[Law]]) -> tuple[MonotoneCurves, list[list[float]]]:
    """Ironed virtual values of a block of laws, and their reserves."""
    ironed: list[IronedLaw] = iron_all([law for row in rows for law in row])
    shape = (len(rows), len(rows[0]))
    reserves = torch.tensor([one.reserve for one in ironed], dtype=torch.float64).reshape(shape).tolist()
    return MonotoneCurves.stack([(one.values, one.virtual) for one in ironed], shape), reserves


def _sell(
    curves: MonotoneCurves, bids: Float[Tensor, "*b n m"]
) -> tuple[Float[Tensor, "*b n m"], Float[Tensor, "*b n m"]]:
    """Who gets each item, and what he pays for it."""
    virtual = curves(bids)
    nobody = torch.full_like(virtual[..., :1, :], -torch.inf)
    earlier = torch.cat([nobody, virtual.cummax(-2).values[..., :-1, :]], -2)
    later = torch.cat([virtual.flip(-2).cummax(-2).values.flip(-2)[..., 1:, :], nobody], -2).clamp_min(0)
    wins = (virtual > earlier) & (virtual >= later)
    price = torch.maximum(curves.inverse(later), curves.inverse(earlier, above=True))
    return wins.to(bids), torch.where(wins, price, 0)
