"""Who values what: the law of the valuations, its support, the demand, the known optimum."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from truthful.errors import whole
from truthful.laws import Law, Uniform
from truthful.settings.optima import independent_optimum
from truthful.settings.optimum import Optimum
from truthful.settings.regions import Polygon, box_corners
from truthful.shapes import Float
from truthful.streams import Stream

DEMANDS = ("additive", "unit")

Bound = float | Sequence[float] | Sequence[Sequence[float]]
"""One number; one number an item; or one row a bidder, with one number an item (or one for all of them)."""


class Setting(ABC):
    """An auction setting. It is the only place that knows the support of the valuations."""

    n_bidders: int
    n_items: int
    demand: str
    """`additive` or `unit` (at most one item is of use to a bidder)."""
    convex_support: bool
    """Whether each bidder's support is convex: with it, local incentive compatibility suffices (Carroll 2012)."""
    low: Float[Tensor, "n r"]
    high: Float[Tensor, "n r"]
    """The smallest box that contains the support of what is reported, in float64."""
    laws: tuple[tuple[Law, ...], ...] | None = None
    """The (marginal) law of each value, a row for each bidder, where it is known."""
    independent: bool = False
    """Whether all values are independent."""
    exchangeable_bidders: bool = False
    """Whether permuting the bidders leaves the law of the valuations as it is."""
    exchangeable_items: bool = False
    """Whether permuting the items, for all bidders alike, does."""
    budgeted: bool = False
    """Whether each bidder has a private budget, which he reports after his values and no payment may exceed."""
    features: int = 0
    """Public numbers at the end of a bidder's row of a profile: his context and the items'."""
    observations: int | None = None
    """With observed valuations, how many independent profiles there are: a larger draw repeats some."""

    def __init__(self, n_bidders: int, n_items: int, low: Bound, high: Bound, demand: str) -> None:
        for name, number in (("n_bidders", n_bidders), ("n_items", n_items)):
            whole(name, number, 1)
        if demand not in DEMANDS:
            raise ValueError(f"demand must be one of {', '.join(DEMANDS)}, got {demand!r}")
        self.n_bidders, self.n_items, self.demand = n_bidders, n_items, demand
        self.low = broadcast_bound("low", low, n_bidders, n_items)
        self.high = broadcast_bound("high", high, n_bidders, n_items)
        if not bool((self.low < self.high).all()):
            bidder, item = (int(k) for k in (self.low >= self.high).nonzero()[0])
            raise ValueError(
                f"low must be below high, got low={self.low[bidder, item]:g} and high={self.high[bidder, item]:g} "
                f"for bidder {bidder + 1}, item {item + 1}"
            )
        if not bool((self.low >= 0).all()):
            raise ValueError(f"valuations must not be negative, got low={self.low.min():g}")
        self._bounds: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def sample(self, size: int, generator: torch.Generator) -> Float[Tensor, "{size} n c"]:
        """Draw `size` independent valuation profiles, on the generator's device, in float32.

        Through `quantile`; a setting that has none overrides this.
        """
        return self.quantile(
            torch.rand(size, self.n_bidders, self.reported, generator=generator, device=generator.device)
        )

    def quantile(self, unit: Float[Tensor, "*b n r"]) -> Float[Tensor, "*b n r"]:
        """Values from numbers in the unit cube, one for each; independent uniform numbers give the setting's law.

        Raises ValueError where that is not known; then there is no stratified sampling.
        """
        raise ValueError(
            "this setting's law is not known as a function of uniform numbers; use data=fresh or data=fixed"
        )

    @abstractmethod
    def project(self, values: Float[Tensor, "*b n r"]) -> Float[Tensor, "*b n r"]:
        """The nearest point of each bidder's support. Misreports are kept in the support with it."""

    @property
    def reported(self) -> int:
        """Numbers that a bidder reports, r: his values, and his budget if he has one."""
        return self.n_items + self.budgeted

    def reports(self, values: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b n r"]:
        """What the bidders of these profiles report if they are truthful."""
        return values[..., : self.reported]

    def polygons(self, bidder: int) -> list[Polygon]:
        """One or two items: a bidder's support as convex polygons in the plane, points and segments among them.

        Of one item the second coordinate is 0. Here the product of the supports of the values' laws, or the box.
        """
        if self.n_items > 2:
            raise ValueError(f"only the values of at most 2 items lie in the plane, got {self.n_items} items")
        box = zip(self.low[bidder].tolist(), self.high[bidder].tolist(), strict=True)
        sides = [(ends,) for ends in box] if self.laws is None else [law.pieces for law in self.laws[bidder]]
        across, up = [*sides, ((0.0, 0.0),)][:2]
        return [list(dict.fromkeys(box_corners((a, c), (b, d)))) for a, b in across for c, d in up]

    def density(self, values: Float[Tensor, "*b n r"]) -> Float[Tensor, "*b"] | None:
        """Joint density of a profile, of all its n r numbers at once; 0 outside the support.

        None where the law has no density, or where it is not known.
        """
        return None

    @property
    def shape(self) -> dict[str, Any]:
        """What a mechanism needs to know of a setting, by the names of its arguments."""
        more = {"budgeted": self.budgeted, "features": self.features}
        named = {name: entry for name, entry in more.items() if entry}
        return {"n_bidders": self.n_bidders, "n_items": self.n_items, "demand": self.demand, **named}

    @property
    def optimum(self) -> Optimum | None:
        """The optimal DSIC and IR auction where a theorem gives it, else None. It follows the laws of the values."""
        if self.laws is None or not self.independent:
            return None
        return independent_optimum(self.laws, self.demand)

    @property
    def optimal_revenue(self) -> float | None:
        """Revenue of the optimal DSIC and IR auction where a theorem gives it, else None."""
        return None if self.optimum is None else self.optimum.revenue

    def part(self, stream: Stream) -> Setting:
        """The setting that draws of this stream come from: itself, unless observed valuations are split.

        Training draws from `part(Stream.TRAIN)`, audits from that of their own stream.
        """
        return self

    @property
    def observed(self) -> dict[str, Any] | None:
        """Where observed valuations come from, as plain types, for result.json; None for a law."""
        return None

    def at_most(self, profiles: int) -> int:
        """So many profiles, or as many independent ones as there are."""
        return profiles if self.observations is None else min(profiles, self.observations)

    def describe(self) -> str:
        """The law of the values in a few words."""
        if self.laws is None or all(isinstance(law, Uniform) for row in self.laws for law in row):
            return describe_box(self.low, self.high)
        if len(set(sum(self.laws, ()))) == 1:
            return f"values {self.laws[0][0].describe()}"
        text = "values " + " x ".join(law.describe() for law in self.laws[0])
        return text if len(set(self.laws)) == 1 else f"{text} (bidder 1)"

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """`low` and `high` on the device and in the precision of `like`."""
        key = (like.device, like.dtype)
        if key not in self._bounds:
            self._bounds[key] = (self.low.to(like), self.high.to(like))
        return self._bounds[key]


def exchangeable(laws: tuple[tuple[Law, ...], ...]) -> tuple[bool, bool]:
    """Whether bidders, and whether items, are exchangeable under these laws, if nothing else tells them apart."""
    return len(set(laws)) == 1, all(len(set(row)) == 1 for row in laws)


def broadcast_bound(name: str, bound: Bound, n_bidders: int, n_items: int) -> Float[Tensor, "n m"]:
    """A bound given as a scalar, one number an item, or one row a bidder, as a tensor of shape (n, m)."""
    expected = f"a number, {n_items} numbers (one an item), or {n_bidders} rows (one a bidder) of {n_items} or 1"
    try:
        tensor = torch.tensor(bound, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must be {expected}, got {bound!r}") from None
    fits = (
        tensor.ndim == 0
        or (tensor.ndim == 1 and len(tensor) == n_items)
        or (tensor.ndim == 2 and tensor.shape[0] == n_bidders and tensor.shape[1] in (1, n_items))
    )
    if not fits or not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} must be {expected}, got {bound!r}")
    return tensor.expand(n_bidders, n_items).clone()


def describe_box(low: Float[Tensor, "n m"], high: Float[Tensor, "n m"]) -> str:
    """The box from low to high in a few words."""
    if bool((low == low[0, 0]).all()) and bool((high == high[0, 0]).all()):
        return f"values from {low[0, 0]:g} to {high[0, 0]:g}"
    ends = zip(low[0].tolist(), high[0].tolist(), strict=True)
    text = "values from " + " x ".join(f"[{a:g}, {b:g}]" for a, b in ends)
    return text if bool((low == low[0]).all()) and bool((high == high[0]).all()) else f"{text} (bidder 1)"
