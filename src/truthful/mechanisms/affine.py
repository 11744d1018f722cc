"""Affine maximisers: VCG with weights on bidders and boosts on allocations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.mechanisms.affine_fit import fit_boosts
from truthful.mechanisms.allocations import all_owners, as_allocations, bundle, orbit
from truthful.mechanisms.base import Mechanism
from truthful.mechanisms.quadrature import revenue_over_atoms
from truthful.settings.base import Setting
from truthful.shapes import Float

Boosts = Mapping[str | int, float | int]
"""By name; in yaml a name that is a number need not be quoted."""

CHUNK = 2**22
"""Welfares that are held at once."""


class _AffineMaximizer(Mechanism):
    """The allocation with the largest sum of weighted values and boost; weighted externalities as prices."""

    strategyproof = "affine maximiser with weighted externalities as prices: Roberts 1979"
    allocations: Tensor
    """All feasible ones."""
    boosts: Tensor
    """One an allocation."""
    weights: Tensor
    named_boosts: Tensor
    """One a name."""

    def __init__(
        self,
        setting: Setting,
        names: list[list[str]],
        boosts: Boosts | None,
        weights: Sequence[float | int] | None,
        samples: int,
        restarts: int,
        seed: int,
    ) -> None:
        """Give boosts by their names, or fit them.

        Args:
            setting: what it is fitted to.
            names: for each allocation the names of the boosts that it is the sum of; none: 0.
            boosts: by name; null to fit them.
            weights: one a bidder; null to fit them with the boosts, equal ones for exchangeable bidders.
            samples, restarts, seed: of the fit.
        """
        super().__init__(**setting.shape)
        owners = all_owners(self.n_bidders, self.n_items, self.demand)
        self.register_buffer("allocations", as_allocations(owners, self.n_bidders))
        self.names = list(dict.fromkeys(name for allocation in names for name in allocation))
        design = torch.tensor([[allocation.count(name) for name in self.names] for allocation in names]).double()
        self._found = boosts is None
        given = None if boosts is None else self._by_name(boosts)
        checked = self._checked(weights)
        if given is None:
            symmetric = torch.tensor(_numbers([orbit(row, setting) for row in owners]))
            given, checked = fit_boosts(setting, self.allocations, symmetric, design, checked, samples, restarts, seed)
        elif checked is None:
            checked = torch.ones(self.n_bidders, dtype=torch.float64)
        self.register_buffer("named_boosts", given)
        self.register_buffer("boosts", design @ given)
        self.register_buffer("weights", checked)

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
        allocations, boosts, weights = (part.to(bids) for part in (self.allocations, self.boosts, self.weights))
        weighted = bids * weights[:, None]
        welfare = weighted.flatten(-2) @ allocations.flatten(-2).T + boosts
        best = welfare.argmax(-1)
        allocation = allocations[best]
        own = (weighted * allocation).sum(-1)
        others = welfare.gather(-1, best[:, None]) - own
        without = [(welfare - weighted[:, i] @ allocations[:, i].T).amax(-1) for i in range(self.n_bidders)]
        return allocation, (torch.stack(without, -1) - others).clamp_min(0) / weights

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
    differences of boosts matter: the smallest fitted one is 0.

    Args:
        setting: gives the shape, the demand, what is exchangeable, and profiles to fit on. Up to 4096 allocations.
        boosts: by the name of the allocation (`allocations.orbit`): with exchangeable bidders and items the numbers of
            items that winners get, such as `2+1`; null: those that earn most on a sample of training profiles.
        weights: one a bidder; null: fitted with the boosts unless bidders are exchangeable; 1 with given boosts.
        samples: training profiles.
        restarts: searches on a tenth of them, the best of which is refined on all.
        seed: of the profiles, which are never those of an audit, and of the searches.
    """

    def __init__(
        self,
        setting: Setting,
        boosts: Boosts | None,
        weights: Sequence[float | int] | None,
        samples: int,
        restarts: int,
        seed: int,
    ) -> None:
        owners = all_owners(**setting.shape)
        super().__init__(setting, [[orbit(row, setting)] for row in owners], boosts, weights, samples, restarts, seed)
        if self._found:
            self.named_boosts -= self.boosts.min()
            self.boosts -= self.boosts.min()


class VVCA(_AffineMaximizer):
    """Virtual valuations combinatorial auction: an affine maximiser with boosts for what each bidder gets.

    An allocation's boost is the sum of its bidders' boosts, 0 for nothing (Likhodedov and Sandholm 2004, 2005).

    Args:
        setting, weights, samples, restarts, seed: as for AMA.
        boosts: by the name of a bidder's bundle (`allocations.bundle`): with exchangeable bidders and items the number
            of items in it; null: those that earn most on a sample of training profiles.
    """

    def __init__(
        self,
        setting: Setting,
        boosts: Boosts | None,
        weights: Sequence[float | int] | None,
        samples: int,
        restarts: int,
        seed: int,
    ) -> None:
        owners = all_owners(**setting.shape)
        bidders = range(1, setting.n_bidders + 1)
        names = [[bundle(bidder, row, setting) for bidder in bidders if bidder in row] for row in owners]
        super().__init__(setting, names, boosts, weights, samples, restarts, seed)


def _numbers(names: list[str]) -> list[int]:
    """The same number for the same name."""
    distinct = {name: k for k, name in enumerate(dict.fromkeys(names))}
    return [distinct[name] for name in names]
