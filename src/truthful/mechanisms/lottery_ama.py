"""Lottery AMA (Curry, Sandholm and Dickerson 2022): every number of the menu is a parameter."""

from __future__ import annotations

import torch
from torch import nn

from truthful.mechanisms.affine_menu import AffineMenu, LearnedAffineMaximizer
from truthful.mechanisms.feasible import score_shapes
from truthful.settings.base import Setting


class LotteryAMA(LearnedAffineMaximizer):
    """Allocations, boosts and weights are free parameters; an allocation is a softmax of its own scores.

    Args:
        setting, entries, temperature: as for every learned affine maximiser.
        spread: standard deviation of the first scores; the larger, the nearer the first entries are to deterministic
            allocations, of which there should be many different ones.
    """

    def __init__(self, setting: Setting, entries: int | None, temperature: float, spread: float) -> None:
        super().__init__(setting, entries, temperature)
        if not spread > 0:
            raise ValueError(f"spread must be a positive number, got {spread!r}")
        self.spread = spread
        shapes = score_shapes(**setting.shape)
        self.scores = nn.ParameterList(nn.Parameter(torch.zeros(self.entries, *shape)) for shape in shapes)
        self.boosts = nn.Parameter(torch.zeros(self.entries))
        self.tilts = nn.Parameter(torch.zeros(self.n_bidders))

    def initialise(self, generator: torch.Generator) -> None:
        """Normal scores, boosts that differ a little, equal weights."""
        for scores in self.scores:
            nn.init.normal_(scores, std=self.spread, generator=generator)
        nn.init.normal_(self.boosts, std=0.05, generator=generator)
        nn.init.zeros_(self.tilts)

    def menu(self) -> AffineMenu:
        """The parameters."""
        return self.assemble(list(self.scores), self.boosts, self.tilts)
