"""Affine maximisers over a menu of lotteries that is learned: the rule, and what training differentiates instead."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.mechanisms.affine import CHUNK, ROBERTS, welfare_of_others
from truthful.mechanisms.base import Mechanism
from truthful.mechanisms.feasible import share
from truthful.settings.base import Setting
from truthful.shapes import Float

FEWEST, MOST = 64, 2048
"""Entries of a menu whose size is not given: as many as there are deterministic allocations, within these limits."""

FAINTEST = -60.0
"""Logarithm of the smallest odds: processors are slow with numbers that are hardly above 0."""


@dataclass(frozen=True)
class AffineMenu:
    """What an affine maximiser chooses from. It depends on no bid."""

    allocations: Float[Tensor, "k n m"]
    """Chances, feasible in each of the k entries."""
    boosts: Float[Tensor, "k"]
    """In units of value."""
    weights: Float[Tensor, "n"]
    """Positive, their geometric mean 1."""


class LearnedAffineMaximizer(Mechanism):
    """The entry with the largest sum of weighted values and boost; weighted externalities as prices.

    Bidder i pays (the best score for the others - their score in the chosen entry) / weight_i, a score for the others
    being all but i's part, boost included. Whatever the menu, no lie pays, since i's report moves no number in what he
    is charged for an entry; payments are not negative; and nobody pays more than his bid for what he gets: the best
    entry for all scores at least what the best one for the others does, in which i's part is not negative.

    Training follows the same rule for all lotteries over the entries, with temperature x entropy as a further boost.
    The best lottery is softmax(score / temperature), the sum then temperature x log sum exp(score / temperature). This
    is an affine maximiser, too: training cannot earn what no truthful auction earns.

    Args:
        setting: gives the shape, the demand and the bounds of values.
        entries: of the menu; null: see `FEWEST`.
        temperature: of that softmax, as a share of the largest value that a bidder has for all items (for unit
            demand: for one). The smaller, the nearer training is to the rule, and the fewer entries have slopes.
    """

    strategyproof = ROBERTS
    middle: Tensor
    unit: Tensor

    def __init__(self, setting: Setting, entries: int | None, temperature: float) -> None:
        super().__init__(**setting.shape)
        if entries is None:
            entries = min(max((self.n_bidders + 1) ** self.n_items, FEWEST), MOST)
        if isinstance(entries, bool) or not isinstance(entries, int) or entries < 1:
            raise ValueError(f"entries must be null or a whole number of at least 1, got {entries!r}")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be a positive number, got {temperature!r}")
        self.entries = entries
        most = setting.high.sum(-1) if self.demand == "additive" else setting.high
        self.temperature = temperature * float(most.max())
        self.register_buffer("unit", setting.high.max())
        self.register_buffer("middle", (setting.low + setting.high) / 2)

    @abstractmethod
    def menu(self) -> AffineMenu:
        """What the parameters say, by `assemble`."""

    def assemble(self, scores: list[Tensor], boosts: Float[Tensor, "k"], tilts: Float[Tensor, "n"]) -> AffineMenu:
        """A menu from numbers that may be anything.

        Args:
            scores: of all entries, matrices as `feasible.share` takes them.
            boosts: as a share of the largest value. At 0 an entry's boost is a reserve of the middle of the values'
                range for what it sells: VCG with that reserve is a better start than VCG.
            tilts: logarithms of the weights, of which only differences count: a larger scale of all weights would be a
                lower temperature.
        """
        allocations = share(scores, torch.softmax)
        reserve = (self.middle.to(allocations) * allocations).sum((-2, -1))
        return AffineMenu(allocations, self.unit.to(boosts) * boosts - reserve, (tilts - tilts.mean()).exp())

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids."""
        menu = self.menu()
        profiles = bids.reshape(-1, self.n_bidders, self.n_items)
        parts = [_best(part, menu) for part in profiles.split(max(1, CHUNK // self.entries))]
        allocation, payment = (torch.cat(column) for column in zip(*parts, strict=True))
        return Outcome(allocation.reshape(bids.shape), payment.reshape(bids.shape[:-1]))

    def relaxed(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The lottery over entries with the largest sum of expected score and temperature x entropy, at its prices."""
        menu = self.menu()
        profiles = bids.reshape(-1, self.n_bidders, self.n_items)
        weighted, score, others = _scores(profiles, menu)
        best, chances = self._lottery(score)
        alone, _ = self._lottery(others)
        allocation = (chances @ menu.allocations.flatten(1)).reshape(profiles.shape)
        payment = ((weighted * allocation).sum(-1) + alone.T - best.unsqueeze(-1)) / menu.weights
        return Outcome(allocation.reshape(bids.shape), payment.reshape(bids.shape[:-1]))

    def _lottery(self, scores: Float[Tensor, "*b k"]) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b k"]]:
        """The sum of expected score and temperature x entropy at its largest, and the lottery that has it."""
        top = scores.detach().amax(-1, keepdim=True)
        odds = ((scores - top) / self.temperature).clamp_min(FAINTEST).exp()
        total = odds.sum(-1, keepdim=True)
        return (top + self.temperature * total.log()).squeeze(-1), odds / total


def _best(bids: Float[Tensor, "b n m"], menu: AffineMenu) -> tuple[Float[Tensor, "b n m"], Float[Tensor, "b n"]]:
    weighted, score, others = _scores(bids, menu)
    chosen = score.argmax(-1)
    allocation = menu.allocations[chosen]
    costs = others.amax(-1).T - welfare_of_others(weighted, allocation, menu.boosts[chosen])
    return allocation, costs.clamp_min(0) / menu.weights


def _scores(
    bids: Float[Tensor, "b n m"], menu: AffineMenu
) -> tuple[Float[Tensor, "b n m"], Float[Tensor, "b k"], Float[Tensor, "n b k"]]:
    """Weighted bids, each entry's score, and its score for the others than each bidder."""
    weighted = bids * menu.weights[:, None]
    parts = weighted.transpose(0, 1) @ menu.allocations.permute(1, 2, 0)
    score = parts.sum(0) + menu.boosts
    return weighted, score, score - parts
