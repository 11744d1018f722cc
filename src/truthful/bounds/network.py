"""Flows from a small network, for settings whose values are too many for a grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from truthful.bounds.inequality import best_surplus, items_to_compute, utility_cap, values_and_densities
from truthful.settings import Setting
from truthful.shapes import Float


class FlowNetwork(nn.Module):
    """w_ij as a function of all values, the same for exchangeable bidders and items (a network on sets).

    It sees of each item the bidder's own quantile and the largest of the others', and a pooled summary over his items.
    Where bidders or items are not exchangeable it also sees which of them they are.

    Args:
        setting: one to which the inequality applies.
        width: hidden units.
        pooled: entries of the summary.
    """

    def __init__(self, setting: Setting, width: int, pooled: int) -> None:
        super().__init__()
        self.setting, self.width = setting, width
        n, m = setting.n_bidders, setting.n_items
        bidders = torch.zeros(n, 0) if setting.exchangeable_bidders else torch.eye(n)
        items = torch.zeros(m, 0) if setting.exchangeable_items else torch.eye(m)
        marks = torch.cat([bidders.unsqueeze(1).expand(n, m, -1), items.expand(n, m, -1)], -1)
        self.register_buffer("marks", marks)
        inputs = 2 + marks.shape[-1]
        self.summary = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, pooled))
        self.score = nn.Sequential(
            nn.Linear(inputs + pooled, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    marks: Tensor

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the parameters, as torch does by default but from a generator."""
        for parameter in self.parameters():
            with torch.no_grad():
                fan = parameter.shape[-1] if parameter.ndim > 1 else self.width
                parameter.uniform_(-1, 1, generator=generator).div_(math.sqrt(fan))

    def weights(
        self, item: int, own: Float[Tensor, "b n k"], quantile: Float[Tensor, "b n m"]
    ) -> Float[Tensor, "b n k"]:
        """w_ij at the profile `quantile` with each bidder's own quantile of the item replaced by each of `own`."""
        m = self.setting.n_items
        if self.setting.n_bidders == 1:
            rival = torch.zeros_like(quantile)
        else:
            first, second = quantile.topk(2, 1).values.split(1, 1)
            rival = torch.where(quantile == first, second, first)
        marks = self.marks.expand(len(quantile), -1, -1, -1)
        features = torch.cat([torch.stack([quantile, rival], -1), marks], -1)
        others = [k for k in range(m) if k != item]
        k = own.shape[-1]
        here = features[:, :, item].unsqueeze(2).expand(-1, -1, k, -1)
        here = torch.cat([own.unsqueeze(-1), here[..., 1:]], -1)
        rest = features[:, :, others]
        summary = (self.summary(rest).sum(2, keepdim=True) + self.summary(here)) / math.sqrt(m)
        score = self.score(torch.cat([here, summary], -1)).squeeze(-1)
        rest = rest.unsqueeze(2).expand(-1, -1, k, -1, -1)
        summary = summary.unsqueeze(3).expand(-1, -1, -1, m - 1, -1)
        total = score + self.score(torch.cat([rest, summary], -1)).squeeze(-1).sum(-1)
        weights: Tensor = score - total / m + 1 / m
        return weights

    def bound(self, quantile: Float[Tensor, "b n m"], points: int, generator: torch.Generator) -> Float[Tensor, "b"]:
        """The right side of the inequality at each profile; its mean over uniform quantiles is the bound.

        The integrals A, from a bidder's own quantile up, are means over `points` stratified random numbers, whose noise
        only raises the expectation; half as many below it complete the integral from 0.
        """
        setting = self.setting
        columns = items_to_compute(setting)
        virtual: list[list[Tensor]] = [[] for _ in range(setting.n_bidders)]
        boundary = torch.zeros(len(quantile)).to(quantile)
        drawn = [
            [values_and_densities(setting, i, j, quantile[:, i, j]) for j in range(setting.n_items)]
            for i in range(setting.n_bidders)
        ]
        for j in columns:
            own = quantile[:, :, j : j + 1]
            above, below = (self._stratified(own, part, generator) for part in (points, max(1, points // 2)))
            at = torch.cat([own + (1 - own) * above, own * below], -1)
            weights = self.weights(j, at, quantile)
            flow = ((1 - own) * weights[..., :points].mean(-1, keepdim=True)).squeeze(-1)
            whole = flow + (own * weights[..., points:].mean(-1, keepdim=True)).squeeze(-1)
            deficit = (-whole).clamp_min(0)
            for i in range(setting.n_bidders):
                value, density = drawn[i][j]
                virtual[i].append(value - flow[:, i] / density)
                gaps = [drawn[i][k][0] - float(setting.low[i, k]) for k in range(setting.n_items) if k != j]
                boundary = boundary + deficit[:, i] * utility_cap(gaps, setting.demand)
        return setting.n_items / len(columns) * (best_surplus(virtual, setting.demand) + boundary)

    def _stratified(self, like: Tensor, points: int, generator: torch.Generator) -> Float[Tensor, "b n k"]:
        """One random number in each of `points` equal parts of [0, 1], for each bidder of each profile."""
        place = torch.rand(*like.shape[:2], points, generator=generator).to(like)
        return (torch.arange(points).to(like) + place) / points
