"""Regret at a kept misreport that climbs, or at something new: the climbing mode."""

from __future__ import annotations

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.errors import whole
from truthful.mechanisms.base import Mechanism
from truthful.regret.ascent import frozen, gradient_at_truth, points_out
from truthful.regret.base import Begun, RegretMode, Run, check_sufficiency, directly
from truthful.regret.probing import best_of, menu_of, normalised, tilt, warn_that_nothing_is_kept
from truthful.regret.steps import positive
from truthful.settings.base import Setting
from truthful.shapes import Float


class ClimbingRegret(RegretMode):
    """relu of the gain at the best of these reports, for each profile and bidder; the best is kept, with its slope.

    - The kept misreport.
    - `tries` others, drawn at random for each profile and bidder, one from each of `tries` equal parts of this list:
      - half, the kept misreport moved up the slope that was found there at the last visit, by reach * s^power
        of the support's width, s ~ U(0, 1); where it did not gain, as at first, from the truth up the slope there;
      - a sixth, the kept misreport with one item, or a budget, at one of its bounds;
      - a sixth, a point along the slope at the truth, by the same law;
      - a twelfth, what another profile of the batch reports;
      - a twelfth, every item raised, or every item shaded (`tilt`).
    - With one bidder, the best of what other types get (`menu_of`).

    All are scored by one evaluation, forwards only. The best is then evaluated anyway, with derivatives, by the
    network's own step, so that its slope in the report is there for nothing ("free" adversarial training, Shafahi et
    al. 2019).

    Without a fixed sample nothing is kept: a move and a bound start at the truth.

    Args:
        tries: number of reports to try beside the kept one, at least 1.
        reach: longest move, Euclidean, as a share of the support's width.
        power: 1 for lengths uniform up to it, more for shorter ones.
        assume_sufficient: use it although local incentive compatibility is not known to suffice for the setting.
    """

    local = True
    starts_at_truth = True
    follows = True  # unless there is nothing to keep
    kept: Tensor | None
    direction: Tensor | None
    """Up the slope at what is kept, in shares of the width; 0 where it did not gain."""

    def __init__(self, tries: int, reach: float, power: float, assume_sufficient: bool) -> None:
        super().__init__()
        self.tries = whole("regret.tries", tries, 1)
        self.reach, self.power = positive("regret.reach", reach), positive("regret.power", power)
        self.assume_sufficient = assume_sufficient
        self.evaluations = 1 + (1 + tries) // 3
        self.register_buffer("kept", None)
        self.register_buffer("direction", None)

    def prepare(self, setting: Setting, sample: Float[Tensor, "s n c"] | None, generator: torch.Generator) -> None:
        """Check the preconditions; the kept misreports begin at the truth. Without a fixed sample none are kept."""
        if not self.assume_sufficient:
            check_sufficiency(setting)
        self.follows = sample is not None
        self.kept = None if sample is None else setting.reports(sample).clone()
        self.direction = None if self.kept is None else torch.zeros_like(self.kept)
        if sample is None:
            warn_that_nothing_is_kept("climbing")

    def begin(
        self, setting: Setting, values: Float[Tensor, "b n c"], rows: slice | None, generator: torch.Generator
    ) -> Begun:
        """What is kept; what another profile reports; four numbers in [0, 1) for each try; types for the menu."""
        values = setting.reports(values)
        stored = () if self.kept is None or self.direction is None else (self.kept[rows], self.direction[rows])
        another = values[torch.randperm(len(values), generator=generator).to(values.device)]
        drawn = torch.rand((*values.shape[:-1], 4 * self.tries), generator=generator, dtype=values.dtype)
        return stored, another, drawn.to(values.device), menu_of(setting, values, generator)

    def find(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        begun: Begun,
        truthful: Outcome | None = None,
        run: Run = directly,
    ) -> Float[Tensor, "*b n r"]:
        """The best candidate, whether it gains or not."""
        assert truthful is not None
        low, high = setting.bounds(values)
        slope = normalised(gradient_at_truth(setting, values, truthful) * (high - low))
        candidates = self.candidates(setting, values.detach(), begun, slope)
        with frozen(mechanism), torch.no_grad():
            return best_of(mechanism, values.detach(), candidates, begun[-1])

    def candidates(
        self, setting: Setting, values: Float[Tensor, "*b n c"], begun: Begun, slope: Float[Tensor, "*b n r"]
    ) -> Float[Tensor, "*s k b n r"]:
        """The kept misreport, if there is one, and the tries; `slope` is normalised, in shares of the width."""
        stored, another, drawn, _ = begun
        low, high = setting.bounds(values)
        truth = setting.reports(values)
        kept, direction = stored or (truth, torch.zeros_like(truth))
        gains = direction.any(-1, keepdim=True)
        start, way = torch.where(gains, kept, truth), torch.where(gains, direction, slope)
        found = [kept] if stored else []
        for k, numbers in enumerate(drawn.split(4, -1)):
            share, s, side, which = numbers.split(1, -1)
            kind, length = (k + share) / self.tries, self.reach * s.pow(self.power)
            bound = torch.where(side < 0.5, low, high)
            item = torch.arange(truth.shape[-1], device=truth.device) == (which * truth.shape[-1]).floor()
            report = tilt(truth, bound, s)
            report = torch.where(kind < 11 / 12, another, report)
            report = torch.where(kind < 10 / 12, truth + length * slope * (high - low), report)
            report = torch.where(kind < 8 / 12, torch.where(item, bound, kept), report)
            report = torch.where(kind < 6 / 12, start + length * way * (high - low), report)
            found.append(setting.project(report))
        return torch.stack(found, -4)

    def follow(
        self,
        setting: Setting,
        begun: Begun,
        misreport: Float[Tensor, "*b n r"],
        slope: Float[Tensor, "*b n r"],
    ) -> Float[Tensor, "*b n s"]:
        """The report and the direction up its slope, none out of the box, none where it does not gain."""
        low, high = setting.bounds(misreport)
        slope = torch.where(points_out(misreport, slope, low, high), 0.0, slope * (high - low))
        return torch.cat([misreport, normalised(slope)], -1)

    def store(self, rows: slice | None, misreport: Float[Tensor, "b n s"]) -> None:
        """For the next visit."""
        if self.kept is not None and self.direction is not None:
            self.kept[rows], self.direction[rows] = misreport.chunk(2, -1)
