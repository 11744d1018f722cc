"""Independent valuations, uniform on a union of intervals: a support with gaps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from truthful.settings.base import Setting
from truthful.shapes import Float


class UniformUnion(Setting):
    """v_ij independent, uniform on the union of `intervals` (the same for all bidders and items).

    The support is not convex, so local incentive compatibility does not suffice for DSIC: a bidder may gain by
    jumping across a gap although no small lie pays.

    Args:
        n_bidders: number of bidders n.
        n_items: number of items m.
        intervals: disjoint intervals (low, high) in ascending order, at least two.
        demand: `additive` or `unit`.
    """

    convex_support = False

    def __init__(self, n_bidders: int, n_items: int, intervals: Sequence[Sequence[float]], demand: str) -> None:
        ends = [float(end) for interval in intervals for end in interval]
        if len(intervals) < 2 or any(len(interval) != 2 for interval in intervals) or ends != sorted(set(ends)):
            raise ValueError(
                f"intervals must be at least two disjoint pairs (low, high) in ascending order, got {intervals!r}"
            )
        super().__init__(n_bidders, n_items, ends[0], ends[-1], demand)
        self.intervals = torch.tensor(intervals, dtype=torch.float64)

    def sample(self, size: int, generator: torch.Generator) -> Float[Tensor, "{size} n m"]:
        """Draw `size` profiles on the generator's device, in float32."""
        unit = torch.rand(size, self.n_bidders, self.n_items, generator=generator, device=generator.device)
        low, high = self.intervals.to(unit).unbind(-1)
        length = high - low
        before = length.cumsum(0) - length  # total length of the intervals to the left
        distance = unit * length.sum()
        k = torch.searchsorted(before, distance, right=True) - 1
        return torch.minimum(low[k] + (distance - before[k]), high[k])

    def project(self, values: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n m"]:
        """Move every value to the nearest point of the union."""
        low, high = self.intervals.to(values).unbind(-1)
        candidates = values.unsqueeze(-1).clamp(low, high)
        nearest = (candidates - values.unsqueeze(-1)).abs().argmin(-1, keepdim=True)
        return candidates.gather(-1, nearest).squeeze(-1)
