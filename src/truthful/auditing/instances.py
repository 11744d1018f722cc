"""Instances: one bidder of one profile, the others truthful. What an attack scores reports on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from truthful.auction import Outcome, utility
from truthful.settings import Setting
from truthful.shapes import Float, Int

ROWS = 2**13
"""Bid profiles that go through the mechanism at once: enough to be efficient, few enough to stay in the cache."""


class Instances:
    """k instances of a mechanism and a setting, and the cost of what was asked about them.

    Searches need a different number of reports for different instances, so reports come as a flat list, each with
    the index of its instance.

    Args:
        mechanism: bids (rows, n, m) to outcome.
        setting: knows the support.
        profiles: the true values of all bidders.
        bidder: who may lie.
        has_gradient: whether the outcome is differentiable in the bids at all.
    """

    def __init__(
        self,
        mechanism: Callable[[Tensor], Outcome],
        setting: Setting,
        profiles: Float[Tensor, "k n c"],
        bidder: Int[Tensor, "k"],
        has_gradient: bool = True,
    ) -> None:
        self.mechanism, self.setting, self.has_gradient = mechanism, setting, has_gradient
        self.profiles, self.bidder = profiles, bidder
        low, high = setting.bounds(profiles)
        self.low, self.high = low[bidder], high[bidder]
        self.width = self.high - self.low
        self.values = setting.reports(profiles[torch.arange(len(profiles), device=profiles.device), bidder])
        self.scale = float(setting.high.max())
        self.cost = 0
        """Forward passes of one bid profile; an input gradient (forward and backward) counts as two."""
        self.broken = 0
        """Reports whose outcome was not finite."""

    def __len__(self) -> int:
        """The number of instances."""
        return len(self.profiles)

    def part(self, rows: slice | Tensor) -> Instances:
        """Some of the instances, with a cost of their own."""
        return Instances(self.mechanism, self.setting, self.profiles[rows], self.bidder[rows], self.has_gradient)

    @property
    def everyone(self) -> Int[Tensor, "k"]:
        """The index of every instance."""
        return torch.arange(len(self), device=self.profiles.device)

    def unit(self, report: Float[Tensor, "*p k m"]) -> Float[Tensor, "*p k m"]:
        """Reports, one an instance, in coordinates where the bidder's box is the unit cube."""
        return (report - self.low) / self.width

    def project(self, instance: Int[Tensor, "r"], report: Float[Tensor, "r m"]) -> Float[Tensor, "r m"]:
        """The nearest report in the support of the instance's bidder."""
        if self.setting.n_bidders == 1:
            return self.setting.project(report.unsqueeze(-2)).squeeze(-2)
        everyone = self.setting.project(report.unsqueeze(-2).expand(-1, self.setting.n_bidders, -1))
        return _row(everyone, self.bidder[instance])

    def utility(self, instance: Int[Tensor, "r"], report: Float[Tensor, "r m"]) -> Float[Tensor, "r"]:
        """True utility of the instance's bidder when he reports `report`."""
        self.cost += len(report)
        with torch.no_grad():
            parts = zip(instance.split(ROWS), report.split(ROWS), strict=True)
            return torch.cat([self._utility(*part) for part in parts])

    def utility_and_gradient(
        self, instance: Int[Tensor, "r"], report: Float[Tensor, "r m"]
    ) -> tuple[Float[Tensor, "r"], Float[Tensor, "r m"]]:
        """The same, and its gradient in the report. Cheapest where the mechanism's parameters are frozen."""
        self.cost += 2 * len(report)
        reached, gradients = [], []
        with torch.enable_grad():
            for part, points in zip(instance.split(ROWS), report.split(ROWS), strict=True):
                points = points.detach().requires_grad_()
                score = self._utility(part, points)
                slope = None
                if score.requires_grad:
                    (slope,) = torch.autograd.grad(score.sum(), points, allow_unused=True)
                gradients.append(torch.zeros_like(points) if slope is None else slope)
                reached.append(score.detach())
        return torch.cat(reached), torch.cat(gradients)

    def _utility(self, instance: Tensor, report: Tensor) -> Tensor:
        score = utility(self.values[instance], self._outcome(instance, report))
        sound = score.isfinite()
        self.broken += len(sound) - int(sound.sum())
        return torch.where(sound, score, -torch.inf)  # a NaN would win every comparison

    def _outcome(self, instance: Tensor, report: Tensor) -> Outcome:
        """The deviator's own allocation (r, m) and payment (r,)."""
        bidder = self.bidder[instance]
        index = bidder[:, None, None].expand(-1, 1, report.shape[-1])
        outcome = self.mechanism(self.profiles[instance].scatter(1, index, report.unsqueeze(1)))
        payment = outcome.payment.gather(1, bidder[:, None]).squeeze(1)
        return Outcome(_row(outcome.allocation, bidder), payment, outcome.budgeted)


def _row(matrices: Tensor, bidder: Tensor) -> Tensor:
    index = bidder[:, None, None].expand(-1, 1, matrices.shape[-1])
    return matrices.gather(1, index).squeeze(1)
