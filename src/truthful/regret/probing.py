"""Regret at the best of a few probes near the truth and a kept misreport that follows its slope: the probing mode."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from truthful.auction import Outcome, deviation_utility, utility
from truthful.errors import whole
from truthful.mechanisms.base import Mechanism
from truthful.regret.ascent import chosen, frozen, gradient_at_truth
from truthful.regret.base import Begun, RegretMode, Run, check_sufficiency, directly
from truthful.regret.steps import positive
from truthful.settings.base import Setting
from truthful.shapes import Float

MENU = 128
"""Types whose outcomes one bidder chooses from, at most."""


class ProbingRegret(RegretMode):
    """relu of the gain at the best of these reports, for each profile and bidder; the best is kept and moved on.

    - `probes` points along the slope of utility at the truth, at lengths reach * s^power of the support's width, one s
      in each of `probes` equal parts of (0, 1);
    - the kept misreport;
    - the values of `others` further profiles of the batch, permuted anew at every visit: what another type reports. To
      one bidder alone a mechanism is a menu, whose entries are what it does with any type, so that a few
      types evaluated once (`menu_of`) are candidates in all profiles;
    - `tilts` reports in which every item is raised, or every item shaded, by a share of the way to the bound, drawn
      for each profile and bidder, near 1 more often than not: no type that is ever drawn is near the corners of a box
      of many items, and a network may do anything there.

    All are scored by one evaluation, forwards only; the slope at the truth comes from the truthful outcome. The best
    report is then evaluated anyway, with derivatives, by the network's own step, so that its slope in the report is
    there for nothing ("free" adversarial training, Shafahi et al. 2019): the kept misreport is the best one moved along
    it, by up to `follow`.

    Args:
        reach: longest probe, Euclidean, as a share of the support's width.
        power: 1 for lengths uniform up to it, more for shorter ones.
        probes: number of lengths, at least 1.
        others: number of further profiles' values; with one bidder whether there are any.
        tilts: number of tilted reports.
        follow: longest move of the kept misreport, likewise; lengths are uniform up to it.
        assume_sufficient: use it although local incentive compatibility is not known to suffice for the setting.
    """

    local = True
    starts_at_truth = True
    follows = True  # unless there is nothing to keep
    kept: Tensor | None

    def __init__(
        self,
        reach: float,
        power: float,
        probes: int,
        others: int,
        tilts: int,
        follow: float,
        assume_sufficient: bool,
    ) -> None:
        super().__init__()
        self.reach, self.power = positive("regret.reach", reach), positive("regret.power", power)
        self.follow_length = positive("regret.follow", follow)
        self.probes = whole("regret.probes", probes, 1)
        self.others, self.tilts = whole("regret.others", others, 0), whole("regret.tilts", tilts, 0)
        self.assume_sufficient = assume_sufficient
        self.evaluations = 1 + (probes + others + tilts) // 3
        self.register_buffer("kept", None)

    def prepare(self, setting: Setting, sample: Float[Tensor, "s n c"] | None, generator: torch.Generator) -> None:
        """Check the preconditions; the kept misreports begin at the truth. Without a fixed sample none are kept."""
        if not self.assume_sufficient:
            check_sufficiency(setting)
        self.kept = None if sample is None else setting.reports(sample).clone()
        self.follows = sample is not None
        if sample is None:
            warn_that_nothing_is_kept("probing")

    def begin(
        self, setting: Setting, values: Float[Tensor, "b n c"], rows: slice | None, generator: torch.Generator
    ) -> Begun:
        """Candidates that are there already, the lengths of the probes, the length of the move."""
        values = setting.reports(values)
        probes = self.reach * spread(values, self.probes, generator).pow(self.power)
        move = self.follow_length * torch.rand(values.shape[:-1], generator=generator, dtype=values.dtype)
        menu = menu_of(setting, values, generator) if self.others else ()
        count = 0 if menu else self.others
        order = [torch.randperm(len(values), generator=generator).to(values.device) for _ in range(count)]
        ready = [values[permuted] for permuted in order] + ([] if self.kept is None else [self.kept[rows]])
        ready += [tilted(setting, values, generator) for _ in range(self.tilts)]
        return tuple(ready), probes, move.to(values.device), menu

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
        ready, lengths, _, menu = begun
        lengths = lengths.movedim(-1, -3)
        low, high = setting.bounds(values)
        slope = gradient_at_truth(setting, values, truthful) * (high - low)
        values = values.detach()
        probes = setting.reports(values).unsqueeze(-4) + lengths.unsqueeze(-1) * (
            normalised(slope) * (high - low)
        ).unsqueeze(-4)
        candidates = torch.cat([setting.project(probes), *(one.unsqueeze(-4) for one in ready)], -4)
        with frozen(mechanism), torch.no_grad():
            return best_of(mechanism, values, candidates, menu)

    def follow(
        self,
        setting: Setting,
        begun: Begun,
        misreport: Float[Tensor, "*b n r"],
        slope: Float[Tensor, "*b n r"],
    ) -> Float[Tensor, "*b n r"]:
        """A move up the slope; where it does not gain it has none."""
        low, high = setting.bounds(misreport)
        move = begun[2].unsqueeze(-1) * normalised(slope * (high - low))
        return setting.project(misreport + move * (high - low))

    def store(self, rows: slice | None, misreport: Float[Tensor, "b n r"]) -> None:
        """For the next visit."""
        if self.kept is not None:
            self.kept[rows] = misreport


def menu_of(setting: Setting, values: Float[Tensor, "b n r"], generator: torch.Generator) -> tuple[Tensor, ...]:
    """Reports of the batch for `best_entry`, the same for each profile, if there is one bidder and nothing public."""
    if setting.n_bidders > 1 or setting.features:
        return ()
    types = values[torch.randperm(len(values), generator=generator)[:MENU].to(values.device)]
    return (types.repeat(len(values), 1, 1, 1),)


def best_entry(
    mechanism: Mechanism, values: Float[Tensor, "*b 1 c"], types: Float[Tensor, "*k 1 r"]
) -> tuple[Float[Tensor, "*b 1 r"], Float[Tensor, "*b 1"]]:
    """Of `types` the one that the only bidder would best report, and his utility then."""
    entries = types.squeeze(-2)
    menu = mechanism(types)
    menu = replace(menu, allocation=menu.allocation.unsqueeze(-4), payment=menu.payment.unsqueeze(-3))
    worth, which = utility(values.unsqueeze(-3).repeat_interleave(entries.shape[-2], -3), menu).max(-2)
    return entries.gather(-2, which.expand(*which.shape[:-1], entries.shape[-1])).unsqueeze(-2), worth


def best_of(
    mechanism: Mechanism,
    values: Float[Tensor, "*b n c"],
    candidates: Float[Tensor, "*s k b n r"],
    menu: tuple[Tensor, ...],
) -> Float[Tensor, "*b n r"]:
    """For each profile and bidder the candidate, or the entry of the menu, that is best for him."""
    reached = deviation_utility(mechanism, values.unsqueeze(-4), candidates)
    for types in menu:
        entry, worth = best_entry(mechanism, values, types[..., 0, :, :, :])
        candidates = torch.cat([candidates, entry.unsqueeze(-4)], -4)
        reached = torch.cat([reached, worth.unsqueeze(-3)], -3)
    return chosen(candidates, reached.argmax(-3))


def spread(values: Float[Tensor, "b n r"], count: int, generator: torch.Generator) -> Float[Tensor, "b n k"]:
    """For each profile and bidder one number in each of `count` equal parts of (0, 1)."""
    uniform = torch.rand((*values.shape[:-1], count), generator=generator, dtype=values.dtype)
    return ((torch.arange(count, dtype=values.dtype) + uniform) / max(count, 1)).to(values.device)


def tilted(setting: Setting, values: Float[Tensor, "b n c"], generator: torch.Generator) -> Float[Tensor, "b n r"]:
    """Every item raised or shaded by the share 1 - s^3 of the way to the bound, s ~ U(0, 1) for each bidder."""
    low, high = setting.bounds(values)
    up, s = torch.rand((2, *values.shape[:-1], 1), generator=generator, dtype=values.dtype).to(values.device)
    bound = torch.where(up < 0.5, low, high)
    return setting.project(tilt(values, bound, s))


def tilt(
    values: Float[Tensor, "*b n r"], bound: Float[Tensor, "*b n r"], s: Float[Tensor, "*b n 1"]
) -> Float[Tensor, "*b n r"]:
    """All items moved by the share 1 - s^3 of the way to a corner, near which no type of many items is ever drawn."""
    return values + (1 - s.pow(3)) * (bound - values)


def warn_that_nothing_is_kept(mode: str) -> None:
    """Say what a mode that keeps misreports lacks without a fixed sample."""
    warnings.warn(f"regret={mode} keeps no misreports where every batch is new: data=fixed has more", stacklevel=3)


def normalised(slope: Float[Tensor, "*b n r"]) -> Float[Tensor, "*b n r"]:
    """The direction of each bidder's slope; 0 where there is none."""
    return slope / slope.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-12)
