"""Branch and bound over a bidder's reports, for many instances at once, level by level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.auditing.columns import Columns, join
from truthful.auditing.reported import ReportModel, largest, parabola, split_bends
from truthful.auditing.zonotope import Form
from truthful.settings import Setting
from truthful.shapes import Bool, Float, Int

SLACK = 1e-9
"""Added to every bound, times the largest value: rounding is not directed."""
CHUNK = 512
"""Boxes bounded at once: few enough for the processor's cache."""
FIRST_HALVINGS = 2
"""How often the whole support of at most two items is halved before anything is bounded."""
STRAIN = 0.5
"""A box is halved along each item along which the scores vary at least this many times as much as along any other;
with three items or more only where they vary the most."""
ROUNDS = 16
"""Shares into which an instance's budget is cut: no level takes more than one, spent where the bound is highest."""


@dataclass(frozen=True)
class Boxes(Columns):
    """Boxes of reports, whose they are, a bound of the utility over each, and along which items to halve it."""

    instance: Int[Tensor, "b"]
    centre: Float[Tensor, "b m"]
    half: Float[Tensor, "b m"]
    bound: Float[Tensor, "b"]
    halve: Bool[Tensor, "b m"]

    def halved(self) -> Boxes:
        """The halves, quarters, ... of all boxes; they inherit bound and items."""
        boxes = self
        for item in range(self.centre.shape[-1]):
            chosen = boxes.halve[:, item]
            unit = torch.zeros_like(boxes.half)
            unit[:, item] = chosen
            half = boxes.half * (1 - unit / 2)
            step = half * unit
            lower = Boxes(boxes.instance, boxes.centre - step, half, boxes.bound, boxes.halve)
            upper = Boxes(boxes.instance, boxes.centre + step, half, boxes.bound, boxes.halve)
            boxes = join(lower, upper.take(chosen))
        return boxes


class Search:
    """The search for instances of one bidder. All bounds are of utility; `run` turns them into regret."""

    def __init__(
        self,
        model: ReportModel,
        setting: Setting,
        profiles: Float[Tensor, "k n c"],
        misreport: Float[Tensor, "k m"],
        eps: float,
        max_boxes: int,
        radius: float | None,
    ) -> None:
        self.model, self.setting, self.profiles = model, setting, profiles
        self.max_boxes, self.whole = max_boxes, radius is None
        self.eps = eps * (1 - 1e-6)  # so that rounding does not open what it closes
        self.values = profiles[:, model.bidder]
        low, high = (bound[model.bidder] for bound in setting.bounds(profiles))
        self.low, self.high = low.expand_as(self.values), high.expand_as(self.values)
        if radius is not None:
            reach = radius * (high - low)
            self.low = torch.maximum(self.low, self.values - reach)
            self.high = torch.minimum(self.high, self.values + reach)
        self.slack = SLACK * float(setting.high.max())
        self.base = model.base(profiles)
        self.everyone = torch.arange(len(profiles), device=profiles.device)
        self.truthful = model.utility(profiles, self.values, self.values)
        self.best, self.report = self.truthful.clone(), self.values.clone()
        self._try(self.everyone, misreport)
        self.dropped = torch.full_like(self.best, -torch.inf)
        self.bounded = torch.zeros_like(self.everyone)

    def run(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Lower and upper bounds of regret, the number of boxes bounded, and the best report known."""
        boxes = self._start()
        waiting = boxes.take(self.everyone[:0])
        while len(boxes):
            waiting = join(waiting, self._bound(boxes))
            alive = waiting.bound > self.best[waiting.instance] + self.eps
            self._drop(waiting.instance[~alive], waiting.bound[~alive])
            waiting = waiting.take(alive)
            affordable = self._affordable(waiting)
            boxes, waiting = waiting.take(affordable).halved(), waiting.take(~affordable)
        self._drop(waiting.instance, waiting.bound)
        lower = self.best - self.truthful
        return lower, torch.maximum(lower, self.dropped - self.truthful), self.bounded, self.report

    def _start(self) -> Boxes:
        centre, half = (self.high + self.low) / 2, (self.high - self.low) / 2
        bound = self.values.sum(-1) + self.slack  # payments are never negative
        boxes = Boxes(self.everyone, centre, half, bound, torch.ones_like(centre, dtype=torch.bool))
        items = centre.shape[-1]
        if self.whole and items <= 2 and 2 ** (items * FIRST_HALVINGS) <= self.max_boxes:
            for _ in range(FIRST_HALVINGS):
                boxes = boxes.halved()
        return boxes

    def _bound(self, boxes: Boxes) -> Boxes:
        """Bound the utility over boxes, raise the incumbents, and return what may hold a better report."""
        self.bounded += torch.bincount(boxes.instance, minlength=len(self.bounded))
        enclosure, strain, plain = self._enclose(boxes)
        bound = torch.fmin(
            boxes.bound, torch.fmin(largest(enclosure), plain) + self.slack
        )  # an overflow leaves the parent's bound
        alive = bound > self.best[boxes.instance] + self.eps
        self._try(boxes.instance[alive], boxes.centre[alive])
        alive = bound > self.best[boxes.instance] + self.eps
        self._drop(boxes.instance[~alive], bound[~alive])
        low, high = self._contract(boxes.instance[alive], enclosure.map(lambda rows: rows[..., alive]))
        boxes = boxes.take(alive)
        centre, half = boxes.centre + boxes.half * (low + high) / 2, boxes.half * (high - low) / 2
        strain = strain[alive] * (high - low)
        share = STRAIN if strain.shape[-1] <= 2 else 1.0
        halve = strain >= share * strain.amax(-1, keepdim=True)
        return Boxes(boxes.instance, centre, half, bound[alive], halve)

    def _enclose(self, boxes: Boxes) -> tuple[Form, Float[Tensor, "b m"], Float[Tensor, "b"]]:
        """Enclosures of the utility, how much the scores vary along each item, and interval bounds; by chunks."""
        parts, strain, plain = [], [], []
        for chunk in torch.arange(len(boxes), device=self.everyone.device).split(CHUNK):
            instance = boxes.instance[chunk]
            base = (self.base[0][instance], self.base[1][instance])
            utility, scores, interval = self.model.enclose(
                base, self.values[instance], boxes.centre[chunk], boxes.half[chunk]
            )
            parts.append(utility)
            plain.append(interval)
            strain.append(scores.linear.abs().amax(0).T)
        rows, rest = torch.cat([part.rows for part in parts], -1), torch.cat([part.rest for part in parts], -1)
        return Form(rows, rest, self.model.items), torch.cat(strain), torch.cat(plain)

    def _contract(self, instance: Tensor, enclosure: Form) -> tuple[Tensor, Tensor]:
        """Ends, in units of delta, of the part of each box that can hold a report worth more than best + eps.

        What is cut off is bounded by best + eps.
        """
        target = self.best[instance] + self.eps
        self._drop(instance, target)
        squares, mixed = split_bends(enclosure)
        apart = parabola(enclosure.linear, squares)
        others = apart.sum(0) - apart + mixed
        needed = target - self.slack - enclosure.centre - enclosure.rest - others
        low, high = _solve(enclosure.linear, squares, needed)
        return low.T, high.T

    def _affordable(self, boxes: Boxes) -> Tensor:
        """Which boxes to halve next: of each instance those with the highest bounds, as far as its budget goes."""
        cost = 2 ** boxes.halve.sum(-1)
        order = torch.argsort(boxes.bound, descending=True, stable=True)
        order = order[torch.argsort(boxes.instance[order], stable=True)]
        spent = cost[order].cumsum(0)
        whole = torch.zeros_like(self.bounded).index_add_(0, boxes.instance, cost)
        spent = spent - (whole.cumsum(0) - whole)[boxes.instance[order]]
        share = max(self.max_boxes // ROUNDS, 2 ** boxes.halve.shape[-1])
        budget = (self.max_boxes - self.bounded).clamp_max(share)
        affordable = torch.empty_like(order, dtype=torch.bool)
        affordable[order] = spent <= budget[boxes.instance[order]]
        return affordable

    def _drop(self, instance: Tensor, bound: Tensor) -> None:
        self.dropped.scatter_reduce_(0, instance, bound, "amax")

    def _try(self, instance: Tensor, reports: Tensor) -> None:
        """Raise the incumbents with reports, as far as these lie in the support and in the region searched."""
        profiles = self.profiles[instance]
        low, high = self.low[instance], self.high[instance]
        bids = profiles.clone()
        bids[:, self.model.bidder] = reports.clamp(low, high)
        reports = self.setting.project(bids)[:, self.model.bidder]
        inside = ((reports >= low) & (reports <= high)).all(-1)
        utility = self.model.utility(profiles, reports, self.values[instance])
        utility = torch.where(inside, utility, -torch.inf)
        best = self.best.scatter_reduce(0, instance, utility, "amax")
        winner = (utility == best[instance]) & (utility > self.best[instance])
        self.report[instance[winner]] = reports[winner]
        self.best = best


def _solve(linear: Tensor, curvature: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest interval that contains all t in [-1, 1] with linear t + curvature t^2 >= target, slightly widened."""
    ends = []
    for sign in (1.0, -1.0):
        slope = sign * linear
        root = (slope.square() + 4 * curvature * target).clamp_min(0).sqrt()
        falling = -2 * target / (root - slope).clamp_min(1e-300)
        rising = -(slope + root) / torch.where(curvature == 0, 1e-300, 2 * curvature)
        end = torch.where(slope <= 0, falling, rising)
        end = torch.where((slope + curvature >= target) | ~end.isfinite(), 1.0, end + 1e-6)
        ends.append(sign * end.clamp(-1, 1))
    return torch.minimum(ends[1], ends[0]), torch.maximum(ends[0], ends[1])
