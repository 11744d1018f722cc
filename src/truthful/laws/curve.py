"""Non-decreasing piecewise linear functions and their inverses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from truthful.shapes import Float


class MonotoneCurves(nn.Module):
    """Non-decreasing functions, one for each entry of a block of shape `s`, each linear between knots.

    A jump is two knots at one place, a flat part two knots of one height: so a function and its inverse are exact for
    each other, whatever the rounding of the knots.

    Args:
        places: ascending, of shape (*s, k).
        heights: ascending, of shape (*s, k).
    """

    places: Tensor
    heights: Tensor

    def __init__(self, places: Float[Tensor, "*s k"], heights: Float[Tensor, "*s k"]) -> None:
        super().__init__()
        self.register_buffer("places", places)
        self.register_buffer("heights", heights)

    @classmethod
    def stack(cls, curves: Sequence[tuple[Tensor, Tensor]], shape: tuple[int, ...]) -> MonotoneCurves:
        """Curves of several numbers of knots, row by row in a block."""
        longest = max(len(places) for places, _ in curves)

        def pad(knots: Tensor) -> Tensor:
            return torch.cat([knots, knots[-1:].expand(longest - len(knots))])

        blocks = [torch.stack([pad(curve[k]) for curve in curves]).reshape(*shape, longest) for k in (0, 1)]
        return cls(*blocks)

    def forward(self, places: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Heights; at a jump the upper one, right of the last knot the last one, left of the first one -inf."""
        knots, heights = self.places.to(places), self.heights.to(places)
        after = _locate(knots, places, right=True)
        return torch.where(after == 0, -torch.inf, _between(knots, heights, after, places))

    def inverse(self, heights: Float[Tensor, "*b"], above: bool = False) -> Float[Tensor, "*b"]:
        """The smallest place that reaches a height; inf if none does. With `above`, the infimum of those above it."""
        knots, places = self.heights.to(heights), self.places.to(heights)
        after = _locate(knots, heights, right=above)
        found = torch.where(after == 0, places[..., 0], _between(knots, places, after, heights))
        return torch.where(after == knots.shape[-1], torch.inf, found)


def _locate(knots: Tensor, points: Tensor, right: bool) -> Tensor:
    """How many knots of its curve lie left of each point (`right`: or at it)."""
    rows = points.reshape(-1, knots[..., 0].numel()).t().contiguous()
    found = torch.searchsorted(knots.flatten(0, -2).contiguous(), rows, right=right)
    return found.t().reshape(points.shape)


def _between(knots: Tensor, heights: Tensor, after: Tensor, points: Tensor) -> Tensor:
    """Linear between the knot before and the knot after; beyond the last one its height."""
    last = knots.shape[-1] - 1
    shape = (*after.shape, last + 1)
    sides = [(after - 1).clamp(0, last).unsqueeze(-1), after.clamp_max(last).unsqueeze(-1)]
    left, right = (knots.expand(shape).gather(-1, side).squeeze(-1) for side in sides)
    low, high = (heights.expand(shape).gather(-1, side).squeeze(-1) for side in sides)
    gap = right - left
    share = torch.where(gap > 0, (points - left) / torch.where(gap > 0, gap, 1), 0)
    return low + share * (high - low)
