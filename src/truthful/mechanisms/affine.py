"""Affine maximisers: VCG with weights on bidders and boosts on allocations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.mechanisms.affine_fit import fit_boosts
from truthful.mechanisms.allocations import Owners, bundle, orbit
from truthful.mechanisms.base import Mechanism
from truthful.mechanisms.choices import choices_of
from truthful.mechanisms.quadrature import revenue_over_atoms
from truthful.settings.base import Setting
from truthful.shapes import Float

Boosts = Mapping[str | int, float | int]
"""By name; in yaml a name that is a number need not be quoted."""

CHUNK = 2**19
"""Welfares that are held at once."""
ROBERTS = "affine maximiser with weighted externalities as prices: Roberts 1979"


def welfare_of_others(
    weighted: Float[Tensor, "b n m"], allocation: Float[Tensor, "b n m"], boost: Float[Tensor, "b"]
) -> Float[Tensor, "b n"]:
    """What is left of an allocation's score without each bidder's part."""
    held = (weighted * allocation).sum(-1)
    return held.sum(-1, keepdim=True) - held + boost[:, None]


class _AffineMaximizer(Mechanism):
    """The allocation with the largest sum of weighted values and boost; weighted externalities as prices."""

    strategyproof = ROBERTS
    boosts: Tensor
    """One a class of allocations."""
    weights: Tensor
    named_boosts: Tensor
    """One a name."""

    def __init__(
        self,
        setting: Setting,
        boosts: Boosts | None,
        weights: Sequence[float | int] | None,
        samples: int,
        restarts: int,
        seed: int,
    ) -> None:
        """Give boosts by their names, or fit them.

        Args:
            setting: what it is fitted to.
            boosts: by name; null to fit them.
            weights: one a bidder; null to fit them with the boosts, equal ones for exchangeable bidders.
            samples, restarts, seed: of the fit.
        """
        super().__init__(**setting.shape)
        self.choices = choices_of(setting)
        named = [self._names(owners, setting) for owners in self.choices.owners]
        self.names = list(dict.fromkeys(name for several in named for name in several))
        design = torch.tensor([[several.count(name) for name in self.names] for several in named]).double()
        self._found = boosts is None
        given = None if boosts is None else self._by_name(boosts)
        checked = self._checked(weights)
        if given is None:
            fitted, checked = fit_boosts(setting, self.choices, design, checked, samples, restarts, seed)
            given = self._anchored(fitted)
        elif checked is None:
            checked = torch.ones(self.n_bidders, dtype=torch.float64)
        self.register_buffer("named_boosts", given)
        self.register_buffer("boosts", design @ given)
        self.register_buffer("weights", checked)

    @abstractmethod
    def _names(self, owners: Owners, setting: Setting) -> list[str]:
        """Of the boosts that an allocation's is the sum of; none: 0."""

    def _anchored(self, boosts: Float[Tensor, "p"]) -> Float[Tensor, "p"]:
        """The same fitted boosts, where others would do as well."""
        return boosts

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids."""
        profiles = bids.reshape(-1, self.n_bidders, self.n_items)
        parts = [self._sell(part) for part in profiles.split(max(1, CHUNK // len(self.boosts)))]
        allocation, payment = (torch.cat(column) for column in zip(*parts, strict=True))
        return Outcome(allocation.reshape(bids.shape), payment.reshape(bids.shape[:-1]))

    def exact_revenue(self, setting: Setting) -> float | None:
        """A sum over discrete values; not known for others."""
        return revenue_over_atoms(self, setting)

    @property
    def fitted(self) -> dict[str, Any]:
        """Boosts by name, and weights, if they were fitted."""
        if not self._found:
            return {}
        boosts = dict(zip(self.names, self.named_boosts.tolist(), strict=True))
        return {"boosts": boosts, "weights": self.weights.tolist()}

    def _sell(self, bids: Float[Tensor, "b n m"]) -> tuple[Float[Tensor, "b n m"], Float[Tensor, "b n"]]:
        boosts, weights = self.boosts.to(bids), self.weights.to(bids)
        weighted = bids * weights[:, None]
        with torch.no_grad():  # who gets what is constant almost everywhere
            welfare, allocate = self.choices.solve(weighted)
            best = (welfare + boosts[:, None]).argmax(0)
            allocation = allocate(best)
        alone = []
        for dropped in self.choices.dropped:
            with torch.no_grad():
                instead = (welfare[dropped] + boosts[:, None]).argmax(0)
                without = allocate(dropped[instead])
            alone.append((weighted * without).sum((-2, -1)) + boosts[instead])
        costs = torch.stack(alone, -1) - welfare_of_others(weighted, allocation, boosts[best])
        return allocation, costs.clamp_min(0) / weights

    def _by_name(self, boosts: object) -> Float[Tensor, "p"]:
        expected = f"boosts must be null, or a number for each of {', '.join(self.names)}, got {boosts!r}"
        if not isinstance(boosts, Mapping) or {str(name) for name in boosts} != set(self.names):
            raise ValueError(expected)
        by_name = {str(name): number for name, number in boosts.items()}
        try:
            numbers = torch.tensor([float(by_name[name]) for name in self.names], dtype=torch.float64)
        except (TypeError, ValueError):
            raise ValueError(expected) from None
        if not bool(numbers.isfinite().all()):
            raise ValueError(expected)
        return numbers

    def _checked(self, weights: object) -> Float[Tensor, "n"] | None:
        if weights is None:
            return None
        expected = f"weights must be null, or {self.n_bidders} positive numbers (one a bidder), got {weights!r}"
        try:
            numbers = torch.tensor(weights, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(expected) from None
        if numbers.shape != (self.n_bidders,) or not bool(((numbers > 0) & numbers.isfinite()).all()):
            raise ValueError(expected)
        return numbers


class AMA(_AffineMaximizer):
    """Affine maximiser auction: a boost for each deterministic allocation (Likhodedov and Sandholm 2004).

    Allocations that permutations of exchangeable bidders or items turn into each other share one boost. Only
    differences of boosts matter: the smallest fitted one is 0. With exchangeable items a dynamic programme finds the
    best allocation for each number of items that bidders may get, otherwise all allocations are tried.

    Args:
        setting: gives the shape, the demand, what is exchangeable, and profiles to fit on. Up to 4096 allocations,
            with exchangeable items up to 4096 vectors of the numbers of items that bidders get.
        boosts: by the name of the allocation (`allocations.orbit`): with exchangeable bidders and items the numbers of
            items that winners get, such as `2+1`; null: those that earn most on a sample of training profiles.
        weights: one a bidder; null: fitted with the boosts unless bidders are exchangeable; 1 with given boosts.
        samples: training profiles.
        restarts: searches, the best of which counts (`affine_fit.fit_boosts`).
        seed: of the profiles, which are never those of an audit.
    """

    def _names(self, owners: Owners, setting: Setting) -> list[str]:
        return [orbit(owners, setting)]

    def _anchored(self, boosts: Float[Tensor, "p"]) -> Float[Tensor, "p"]:
        return boosts - boosts.min()


class VVCA(_AffineMaximizer):
    """Virtual valuations combinatorial auction: an affine maximiser with boosts for what each bidder gets.

    An allocation's boost is the sum of its bidders' boosts, 0 for nothing (Likhodedov and Sandholm 2004, 2005).

    Args:
        setting, weights, samples, restarts, seed: as for AMA.
        boosts: by the name of a bidder's bundle (`allocations.bundle`): with exchangeable bidders and items the number
            of items in it; null: those that earn most on a sample of training profiles.
    """

    def _names(self, owners: Owners, setting: Setting) -> list[str]:
        return [bundle(bidder, owners, setting) for bidder in range(1, setting.n_bidders + 1) if bidder in owners]
