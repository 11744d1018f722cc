"""Regret at a kept misreport that climbs, or at something new: the climbing mode."""

from __future__ import annotations

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.errors import whole
from truthful.mechanisms.base import Mechanism
from truthful.regret.ascent import frozen, gradient_at_truth, points_out
from truthful.regret.base import Begun, RegretMode, Run, check_sufficiency, directly
from truthful.regret.probing import best_of, menu_of, normalised, spread, tilted
from truthful.regret.steps import positive
from truthful.settings.base import Setting
from truthful.shapes import Float


class ClimbingRegret(RegretMode):
    """relu of the gain at the best of these reports, for each profile and bidder; the best is kept, with its slope.

    - The kept misreport, and `moves` further ones up the slope that was found there at the last visit, at lengths
      reach * s^power of the support's width, one s in each of `moves` equal parts of (0, 1). Where it did not gain, as
      at first, up the slope at the truth. A move is made only if it gains.
    - `fresh` new ones, each drawn at random for each profile and bidder: a point along the slope at the truth (a
      third; the same law of lengths), the kept misreport with one item, or a budget, at a bound (a third), what another
      profile of the batch reports (a sixth), a report with all items raised or shaded (a sixth; `tilted`).
    - With one bidder, the best of what other types get (`menu_of`).

    All are scored by one evaluation, forwards only. The best is then evaluated anyway, with derivatives, by the
    network's own step, so that its slope in the report is there for nothing.

    Without a fixed sample nothing is kept: only the fresh ones are left, round the truth.

    Args:
        moves: number of moves, at least 1.
        fresh: number of new reports, at least 1.
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

    def __init__(self, moves: int, fresh: int, reach: float, power: float, assume_sufficient: bool) -> None:
        super().__init__()
        self.moves, self.fresh = whole("regret.moves", moves, 1), whole("regret.fresh", fresh, 1)
        self.reach, self.power = positive("regret.reach", reach), positive("regret.power", power)
        self.assume_sufficient = assume_sufficient
        self.evaluations = 1 + (moves + fresh) // 3
        self.register_buffer("kept", None)
        self.register_buffer("direction", None)

    def prepare(self, setting: Setting, sample: Float[Tensor, "s n c"] | None, generator: torch.Generator) -> None:
        """Check the preconditions; the kept misreports begin at the truth. Without a fixed sample none are kept."""
        if not self.assume_sufficient:
            check_sufficiency(setting)
        self.follows = sample is not None
        self.kept = None if sample is None else setting.reports(sample).clone()
        self.direction = None if self.kept is None else torch.zeros_like(self.kept)

    def begin(
        self, setting: Setting, values: Float[Tensor, "b n c"], rows: slice | None, generator: torch.Generator
    ) -> Begun:
        """What is kept; lengths of moves and of probes; fresh reports, and which of them are to be probes."""
        values = setting.reports(values)
        stored = () if self.kept is None or self.direction is None else ((self.kept[rows], self.direction[rows]),)
        base = stored[0][0] if stored else values
        moves = self.reach * spread(values, self.moves if stored else 0, generator).pow(self.power)
        probes = self.reach * spread(values, self.fresh, generator).pow(self.power)
        kinds = torch.randint(6, (*values.shape[:-1], self.fresh), generator=generator).to(values.device)
        fresh = []
        for kind in kinds.unsqueeze(-1).unbind(-2):
            another = values[torch.randperm(len(values), generator=generator).to(values.device)]
            report = torch.where(kind == 3, another, tilted(setting, values, generator))
            fresh.append(torch.where(kind < 2, one_at_a_bound(setting, base, generator), report))
        return stored, moves, probes, tuple(fresh), kinds >= 4, menu_of(setting, values, generator)

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
        stored, moves, probes, fresh, probed, menu = begun
        low, high = setting.bounds(values)
        width = high - low
        slope = normalised(gradient_at_truth(setting, values, truthful) * width)
        values = values.detach()
        truth = setting.reports(values)
        candidates = []
        for report, direction in stored:
            gains = direction.any(-1, keepdim=True)
            start, way = torch.where(gains, report, truth), torch.where(gains, direction, slope)
            moved = [setting.project(start + length * way * width) for length in moves.split(1, -1)]
            candidates += [report, *moved]
        for report, length, probe in zip(fresh, probes.split(1, -1), probed.split(1, -1), strict=True):
            candidates.append(torch.where(probe, setting.project(truth + length * slope * width), report))
        with frozen(mechanism), torch.no_grad():
            return best_of(mechanism, values, torch.stack(candidates, -4), menu)

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


def one_at_a_bound(
    setting: Setting, reports: Float[Tensor, "b n r"], generator: torch.Generator
) -> Float[Tensor, "b n r"]:
    """One number of each report, drawn at random, at one of its two bounds."""
    low, high = setting.bounds(reports)
    up = torch.rand(reports.shape[:-1], generator=generator) < 0.5
    which = torch.randint(reports.shape[-1], reports.shape[:-1], generator=generator)
    there = torch.nn.functional.one_hot(which, reports.shape[-1]).bool().to(reports.device)
    return setting.project(torch.where(there, torch.where(up.unsqueeze(-1).to(reports.device), high, low), reports))
