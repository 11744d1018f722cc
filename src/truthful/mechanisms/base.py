"""Bids to outcome: what learned and classical auctions have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from truthful.auction import Outcome
from truthful.errors import whole
from truthful.settings.base import DEMANDS, Setting
from truthful.shapes import Float


class Mechanism(nn.Module, ABC):
    """A direct mechanism for n bidders and m items, feasible for every bid profile by construction."""

    strategyproof: str | None = None
    """The theorem by which no lie ever pays, if there is one; see `theorem`."""
    kinked: bool = False
    """Whether outcomes are linear in pieces: between them may lie strips too narrow for any search to hit."""
    equivariant: bool = False
    """Whether bidders are all treated alike, and items: permuting either permutes the outcome."""

    budgeted: bool = False
    """Whether bids end in a budget, which payments do not exceed; then a parameter of the constructor says so."""
    features: int = 0
    """Public numbers that follow a bidder's bids; likewise."""

    def __init__(self, n_bidders: int, n_items: int, demand: str) -> None:
        super().__init__()
        if n_bidders < 1 or n_items < 1:
            raise ValueError(f"a mechanism needs at least 1 bidder and 1 item, got {n_bidders} and {n_items}")
        if demand not in DEMANDS:
            raise ValueError(f"demand must be one of {', '.join(DEMANDS)}, got {demand!r}")
        self.n_bidders, self.n_items, self.demand = n_bidders, n_items, demand

    @abstractmethod
    def forward(self, bids: Float[Tensor, "*b n c"]) -> Outcome:
        """The outcome for each profile of bids (and budgets and contexts, where there are any)."""

    def relaxed(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """What training differentiates in place of the outcome: something smooth, where the rule itself is a choice.

        Only mechanisms that need no regret may differ here: audits, results and pictures are of `forward`.
        """
        return self.forward(bids)

    def anneal(self, progress: float) -> None:
        """Hear before each iteration which share of training is done, from 0 to 1: `relaxed` may depend on it.

        Through buffers that are changed in place.
        """

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the initial parameters. A mechanism without parameters has nothing to draw."""

    @property
    def theorem(self) -> str | None:
        """`strategyproof`, if it is said of this very rule: a subclass that overrides `forward` has to repeat it."""
        author = next(kind for kind in type(self).__mro__ if "forward" in vars(kind))
        said: str | None = vars(author).get("strategyproof")
        return said

    def exact_revenue(self, setting: Setting) -> float | None:
        """Expected revenue of truthful bids, by a formula or a quadrature, to 1e-9 of it; None where none is known."""
        return None

    @property
    def fitted(self) -> dict[str, Any]:
        """What was chosen for a setting (reserves, prices, boosts), as plain types, for result.json."""
        return {}

    def exported(self) -> tuple[str, dict[str, Any]] | None:
        """This rule for a browser: the name of a file in explore/rules, and what it takes (plain types and tensors).

        None where there is no such file. Raises ValueError where there is one that cannot do this.
        """
        return None

    def surrogate(self) -> Mechanism:
        """A mechanism that computes the same outcomes faster, up to rounding: itself, unless one is known."""
        return self


def at_least_one(**sizes: int) -> None:
    """Refuse sizes, given by their names, that are no whole numbers of at least 1."""
    for name, number in sizes.items():
        whole(name, number, 1)


def glorot(module: nn.Module, generator: torch.Generator) -> None:
    """Glorot uniform weights and zero biases, in every affine map of a module."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def device_of(mechanism: nn.Module) -> torch.device:
    """Where a module's tensors are."""
    return next((tensor.device for tensor in [*mechanism.parameters(), *mechanism.buffers()]), torch.device("cpu"))
