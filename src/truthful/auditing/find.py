"""From a mechanism and profiles to the best misreports found: all stages of an attack, in bounded memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from truthful.auditing.attack import best_reports, polish, search, start_at_truth, truth, try_pool
from truthful.auditing.climb import Points, best_of, scored
from truthful.auditing.columns import join
from truthful.auditing.foreign import has_gradient
from truthful.auditing.instances import Instances
from truthful.auditing.journal import Journal
from truthful.auditing.many_starts import many_starts
from truthful.auditing.tiers import ManyStarts, Portfolio
from truthful.mechanisms import Mechanism
from truthful.settings import Setting
from truthful.shapes import Float, Int

DISAGREEMENT = 1e-4
"""Seeds, and searches of different sizes, that differ by more than this share of the largest value are told of."""

CHUNK = 2**11
"""Instances that are attacked together."""

FEW = 8
"""The same for a search with very many starts."""

Progress = Callable[[str, float], None]
"""Told what is being done (`attack`, `certificate`, `all values`, `small lies`), and which share of it is done."""
WEIGHTS = {"truth": 1, "search": 12, "pool": 4, "refine": 2, "compare": 4, "many": 1}
"""Rough costs of the stages, by the first word of their names, for the share that is done."""


@dataclass(frozen=True)
class Stage:
    """How far the attack was after a stage."""

    name: str
    forward_passes: float
    """Of one bid profile, an instance, so far; an input gradient (forward and backward) counts as two."""
    regret: float
    """Mean over bidders that had been found by then, in the precision of the search."""


@dataclass(frozen=True)
class Findings:
    """What an attack found. Utilities are float64."""

    misreport: Float[Tensor, "b n r"]
    gain: Float[Tensor, "b n"]
    """Over the truth; never negative, because the truth is a report, too."""
    searched: Float[Tensor, "b n"]
    """Gain that the search saw, in its own precision, before the refinement in float64 ..."""
    rescored: Float[Tensor, "b n"]
    """... and the same reports scored in float64."""
    member: Int[Tensor, "b n"]
    """Index into MEMBERS of where the search that found it started."""
    stages: list[Stage]
    forward_passes: float
    """Cost of an instance, as in `Stage`."""
    seed_gap: float | None
    """Largest difference between what two seeds found for an instance, refined where that matters ..."""
    seed_gap_share: float | None
    """... and the share of instances where it is noticeable, above DISAGREEMENT."""
    probe_gain: float | None
    """Largest further gain of a search many times the size, on a few profiles."""
    compass_share: float
    """Share of instances in which the gradient-free search went on where ascents had ended."""
    zero_gradient_share: float
    """Share of instances whose gradient at the truth is exactly zero."""
    broken: int
    """Reports whose outcome was not finite."""
    has_gradient: bool
    """Whether outcomes are connected to the bids by gradients."""


def find_misreports(
    mechanism: Mechanism,
    setting: Setting,
    attack: Portfolio | ManyStarts,
    values: Float[Tensor, "b n c"],
    seeds: list[int],
    journal: Journal,
    progress: Progress,
) -> Findings:
    """The most profitable misreport found for every profile and bidder.

    Args:
        mechanism: left as it is.
        setting: knows the support.
        attack: the search.
        values: profiles, in float32.
        seeds: one for each of the attack's seeds, and one more.
        journal: keeps finished parts.
        progress: is told how far it is.
    """
    hunt = _Hunt(mechanism, setting, values, journal, progress, attack)
    if isinstance(attack, ManyStarts):
        (found,) = hunt.each("many starts", lambda part: [many_starts(part, attack, seeds[0])], chunk=FEW)
        hunt.mark("many starts", found)
        exact = hunt.score_exactly(found)
        return hunt.findings(found, exact, exact)

    (begun,) = hunt.each("truth", lambda part: [start_at_truth(part, attack)])
    hunt.mark("truth", begun)
    by_seed: list[Points] = []
    for k, seed in enumerate(seeds[: attack.seeds], start=1):
        found = hunt.search(f"search {k}", attack, seed, begun)
        hunt.mark(f"search {k}", found, *by_seed)
        found = hunt.pool(f"pool {k}", attack, found)
        by_seed.append(found)
        hunt.mark(f"pool {k}", *by_seed)
    found = hunt.best(*by_seed)
    exact = hunt.score_exactly(found)
    smooth, best = hunt.each("refine", lambda part, old: polish(part, old, attack, seeds[-1]), exact, exactly=True)
    went_on = (best.utility - smooth.utility > 1e-5 * hunt.quick.scale).double().mean()
    gap = None
    if len(by_seed) > 1:
        gap, best = hunt.disagreement(attack, seeds[-1], by_seed, exact, best)
    hunt.mark("refine", best)
    probe = hunt.probe(attack, seeds[-1], best)
    return hunt.findings(found, exact, best, gap=gap, probe_gain=probe, compass_share=float(went_on))


class _Hunt:
    """The instances of an audit, in single and in double precision, and the stages so far."""

    def __init__(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Tensor,
        journal: Journal,
        progress: Progress,
        attack: Portfolio | ManyStarts,
    ) -> None:
        self.shape, self.journal, self.progress = setting.reports(values).shape, journal, progress
        self.work, self.done = WEIGHTS["many"], 0.0
        if isinstance(attack, Portfolio):
            by_seed = attack.seeds * (WEIGHTS["search"] + WEIGHTS["pool"])
            compared = WEIGHTS["compare"] if attack.seeds > 1 else 0
            self.work = WEIGHTS["truth"] + by_seed + WEIGHTS["refine"] + compared
        bidder = torch.arange(setting.n_bidders, device=values.device).repeat(len(values))
        profiles = values.repeat_interleave(setting.n_bidders, 0)
        quick = copy.deepcopy(mechanism).float().surrogate().requires_grad_(False)
        exact = copy.deepcopy(mechanism).double().requires_grad_(False)
        differentiable = has_gradient(quick, values[:1])
        self.quick = Instances(quick, setting, profiles, bidder, differentiable)
        self.exact = Instances(exact, setting, profiles.double(), bidder, differentiable)
        self.cost, self.broken = 0, 0
        self.stages: list[Stage] = []
        (self.truth,) = self.each("score", lambda part: [truth(part)])

    def each(
        self,
        name: str,
        task: Callable[..., Sequence[Points]],
        *points: Points,
        exactly: bool = False,
        chunk: int | None = None,
        among: Int[Tensor, "r"] | None = None,
    ) -> list[Points]:
        """Do `task` with every chunk of the instances (or `among` them), and of `points`, one report an instance."""
        instances = self.exact if exactly else self.quick
        chunk = CHUNK if chunk is None else chunk
        among = instances.everyone if among is None else among
        done = []
        for start, rows in zip(range(0, len(among), chunk), among.split(chunk), strict=True):

            def compute(rows: Tensor = rows) -> list[Tensor]:
                part = instances.part(rows)
                found = task(part, *(one.part(rows) for one in points))
                return [torch.tensor([part.cost, part.broken]), *(tensor for one in found for tensor in one.found)]

            spent, *tensors = self.journal.part(f"{name} {start}", compute)
            self.cost, self.broken = self.cost + int(spent[0]), self.broken + int(spent[1])
            done.append(tensors)
            self.done += WEIGHTS.get(name.split()[0], 0) * len(rows) / len(instances)
            self.progress("attack", self.done / self.work)
        whole = [torch.cat(parts) for parts in zip(*done, strict=True)]
        return [Points(instances.everyone[: len(among)], *whole[k : k + 3]) for k in range(0, len(whole), 3)]

    def best(self, *found: Points) -> Points:
        """The best of several reports an instance."""
        return best_of(len(self.quick), join(*found))

    def search(self, name: str, attack: Portfolio, seed: int, begun: Points) -> Points:
        """Everything random, from one seed; the best report so far."""
        (found,) = self.each(name, lambda part: [search(part, attack, seed)])
        return self.best(begun, found)

    def pool(self, name: str, attack: Portfolio, found: Points) -> Points:
        """The best reports tried on everyone."""
        pooled = best_reports(self.quick, found, found.utility - self.truth.utility, attack.pool)
        (better,) = self.each(name, lambda part, old: [try_pool(part, old, *pooled, attack)], found)
        return better

    def disagreement(
        self, attack: Portfolio, seed: int, by_seed: list[Points], exact: Points, best: Points
    ) -> tuple[Float[Tensor, "k"], Points]:
        """How far apart two seeds are, and the best of all.

        Where that is noticeable and the refinement moved what was known, both seeds are refined before the comparison.
        """
        gap, noticeable = (by_seed[0].utility - by_seed[1].utility).abs().double(), DISAGREEMENT * self.exact.scale
        unsettled = (gap > noticeable) & (best.utility - exact.utility > noticeable / 2)
        rows = unsettled.nonzero().squeeze(1)
        if len(rows):

            def refined(part: Instances, *found: Points) -> list[Points]:
                return [polish(part, scored(part, old), attack, seed)[1] for old in found]

            one, other = self.each("compare", refined, *by_seed, exactly=True, among=rows)
            gap[rows] = (one.utility - other.utility).abs()
            better = best_of(len(rows), join(best.part(rows), one, other))
            best.report[rows], best.utility[rows], best.member[rows] = better.found
        self.progress("attack", 1.0)
        return gap, best

    def probe(self, attack: Portfolio, seed: int, best: Points) -> float | None:
        """What a larger search still gains on the first few profiles. Not part of the cost."""
        if not attack.probed_profiles:
            return None
        few, factor = slice(0, attack.probed_profiles * self.shape[1]), attack.probe_factor
        names = ("sobol_points", "near_points", "scored_starts", "random_starts", "kept")
        larger = replace(attack, **{name: factor * getattr(attack, name) for name in names})
        further = scored(self.exact.part(few), search(self.quick.part(few), larger, seed))
        return float((further.utility - best.part(few).utility).max().clamp_min(0))

    def score_exactly(self, found: Points) -> Points:
        """The same reports, scored in float64."""
        (exact,) = self.each("re-score", lambda part, old: [scored(part, old)], found, exactly=True)
        return exact

    def mark(self, name: str, *found: Points) -> None:
        """Note how far the attack is."""
        truthful = self.truth.utility
        gain = self.best(*found).utility - truthful
        self.stages.append(Stage(name, self.cost / len(self.quick), float(gain.clamp_min(0).double().mean())))

    def findings(
        self,
        found: Points,
        exact: Points,
        best: Points,
        gap: Float[Tensor, "k"] | None = None,
        probe_gain: float | None = None,
        compass_share: float = 0.0,
    ) -> Findings:
        """What there is to report of what the search `found`, scored `exact`ly and refined to the `best`.

        No report is worse than the truth.
        """
        doubles = self.exact
        truthful = doubles.utility(doubles.everyone, doubles.values)
        better = best.utility > truthful
        slope = torch.zeros_like(self.quick.values)
        if self.quick.has_gradient:
            _, slope = self.quick.utility_and_gradient(self.quick.everyone, self.quick.values)
        return Findings(
            misreport=torch.where(better[:, None], best.report, doubles.values).view(self.shape),
            gain=(best.utility - truthful).clamp_min(0).view(self.shape[:2]),
            rescored=(exact.utility - truthful).view(self.shape[:2]),
            searched=(found.utility - self.truth.utility).view(self.shape[:2]),
            member=best.member.view(self.shape[:2]),
            stages=self.stages,
            forward_passes=self.cost / len(self.quick),
            seed_gap=None if gap is None else float(gap.max()),
            seed_gap_share=None if gap is None else float((gap > DISAGREEMENT * doubles.scale).double().mean()),
            probe_gain=probe_gain,
            compass_share=compass_share,
            broken=self.broken,
            has_gradient=self.quick.has_gradient,
            zero_gradient_share=float((slope == 0).all(-1).double().mean()),
        )
