"""The search of an audit: many starts, best point seen, in bounded memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from truthful.auction import deviation_utility
from truthful.auditing.tiers import Tier
from truthful.mechanisms import Mechanism
from truthful.regret import AdamStep, GradientAscent
from truthful.regret.steps import StepRule
from truthful.settings import Setting
from truthful.shapes import Float

ROWS = 2**15
"""Bid profiles that go through the mechanism at once."""


def worst_misreports(
    mechanism: Mechanism,
    setting: Setting,
    tier: Tier,
    values: Float[Tensor, "b n m"],
    random_starts: Float[Tensor, "s b n m"],
    sobol_seed: int,
) -> Float[Tensor, "b n m"]:
    """The most profitable misreport found for every profile and bidder; the truth where none was found.

    `random_starts` are the tier's unscored starts. Samples do not influence each other.
    """
    low, high = setting.bounds(values)
    engine = SobolEngine(setting.n_items, scramble=True, seed=sobol_seed)
    unit = engine.draw(tier.sobol_points).to(values)
    points = setting.project(low + (high - low) * unit.unsqueeze(1))
    ascent = GradientAscent(tier.steps, _WidthScaledAdam(tier, high - low))

    starts = 1 + tier.sobol_starts + tier.random_starts
    chunk = max(1, ROWS // (setting.n_bidders * max(tier.sobol_points, starts)))
    best = []
    for profiles, drawn in zip(values.split(chunk), random_starts.split(chunk, dim=1), strict=True):
        with torch.no_grad():
            scores = deviation_utility(mechanism, profiles, points.unsqueeze(1).expand(-1, len(profiles), -1, -1))
        ranked = scores.topk(tier.sobol_starts, dim=0).indices  # s b n
        bidder = torch.arange(setting.n_bidders, device=values.device)
        scored = points[ranked, bidder]
        found = ascent(mechanism, setting, profiles, torch.cat([profiles.unsqueeze(0), scored, drawn]))
        winner = found.gain.argmax(0, keepdim=True)[..., None].expand(-1, -1, -1, setting.n_items)
        best.append(found.best.gather(0, winner).squeeze(0))
    return torch.cat(best)


class _WidthScaledAdam(StepRule):
    """Adam directions; the length is a share of each value's width and falls geometrically over the steps."""

    def __init__(self, tier: Tier, width: Float[Tensor, "n m"]) -> None:
        self._adam = AdamStep(1.0)
        self._width, self._first = width, tier.first_length
        self._decay = (tier.last_length / tier.first_length) ** (1 / max(1, tier.steps - 1))

    def __call__(self, gradient: Tensor, state: tuple[Any, float] | None) -> tuple[Tensor, Any]:
        """One Adam move of ascent in coordinates where the support's box is the unit cube."""
        inner, length = (None, self._first) if state is None else state
        move, inner = self._adam(gradient * self._width, inner)
        return length * self._width * move, (inner, length * self._decay)
