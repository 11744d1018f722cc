"""Modes made of others: the better of two, a mixture, a succession, both sides of local incentive compatibility."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from truthful.auction import Outcome, deviation_outcome, deviation_utility, utility
from truthful.mechanisms.base import Mechanism
from truthful.regret.ascent import frozen
from truthful.regret.base import Begun, RegretMode, Run, directly
from truthful.settings.base import Setting
from truthful.shapes import Float


class Combined(RegretMode):
    """Two modes that are prepared together. Abstract: a subclass says which of their misreports count.

    Args:
        first, second: the modes.
    """

    combines_searches = True
    """Whether only the misreports of the two are used, so that they must be nothing but searches."""

    def __init__(self, first: RegretMode, second: RegretMode) -> None:
        super().__init__()
        self.first, self.second = first, second
        pair = (first, second)
        if self.combines_searches:
            for mode in pair:
                check_part(mode)
        self.local = all(mode.local for mode in pair)
        self.evaluations = sum(mode.evaluations for mode in pair)
        self.staged = any(mode.staged for mode in pair)
        self.starts_at_truth = not self.staged and any(mode.starts_at_truth for mode in pair)
        self.learns = any(mode.learns for mode in pair)

    def prepare(self, setting: Setting, sample: Float[Tensor, "s n c"] | None, generator: torch.Generator) -> None:
        """Both."""
        self.first.prepare(setting, sample, generator)
        self.second.prepare(setting, sample, generator)


class BetterOf(Combined):
    """For each profile and bidder the best of two modes' misreports and the truth; both store it if they keep any.

    A kept misreport follows the best lie from visit to visit; a search from the truth sees what it has lost. Neither
    alone is as close to the audit. A lie that has stopped paying is given up for the truth: kept, it would wander off
    to where utility is flat and find nothing any more. It costs a forward evaluation of both beside the two searches.
    """

    def begin(
        self, setting: Setting, values: Float[Tensor, "b n c"], rows: slice | None, generator: torch.Generator
    ) -> Begun:
        """Of both."""
        return tuple(mode.begin(setting, values, rows, generator) for mode in (self.first, self.second))

    def find(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        begun: Begun,
        truthful: Outcome | None = None,
        run: Run = directly,
    ) -> Float[Tensor, "*b n r"]:
        """Search twice, score both."""
        modes = (self.first, self.second)
        found = [
            mode.find(mechanism, setting, values, own, truthful, run) for mode, own in zip(modes, begun, strict=True)
        ]
        best: Tensor = run(best_report, mechanism, values.detach(), *found, truthful)
        return best

    def store(self, rows: slice | None, misreport: Float[Tensor, "b n r"]) -> None:
        """In both."""
        self.first.store(rows, misreport)
        self.second.store(rows, misreport)


@torch.no_grad()
def best_report(
    mechanism: Mechanism,
    values: Float[Tensor, "*b n c"],
    one: Float[Tensor, "*b n r"],
    other: Float[Tensor, "*b n r"],
    truthful: Outcome | None,
) -> Float[Tensor, "*b n r"]:
    """Whichever of the two and the truth earns each deviator most. `truthful` is the outcome of the truth, if known."""
    with frozen(mechanism):
        honest = utility(values, mechanism(values) if truthful is None else truthful)
        reached = deviation_utility(mechanism, values.unsqueeze(-4), torch.stack([one, other], -4))
    first, second = reached.unbind(-3)
    better = torch.where((second > first).unsqueeze(-1), other, one)
    truth = values[..., : one.shape[-1]]
    return torch.where((torch.maximum(first, second) > honest).unsqueeze(-1), better, truth)


def check_part(mode: RegretMode) -> None:
    """Raise ValueError unless a mode is nothing but a search: what combines searches uses none of its other parts."""
    if type(mode).forward is not RegretMode.forward or mode.follows or mode.learns or isinstance(mode, Curriculum):
        raise ValueError(
            f"{type(mode).__name__} cannot be a part of another mode: parts are searches (SearchedRegret, BetterOf, "
            "Mixture), in a Reciprocal at most, in a Curriculum at most"
        )


class Mixture(Combined):
    """The first mode for most of a batch, the second for its first rows.

    With a fixed sample these are always the same profiles, so that a second mode which keeps misreports visits each of
    them once an epoch.

    Args:
        first: the cheap mode.
        second: the far-seeing one.
        share: of the batch that the second mode has, from 0 to 1.
    """

    divisible = False  # the second mode's rows are the batch's first

    def __init__(self, first: RegretMode, second: RegretMode, share: float) -> None:
        super().__init__(first, second)
        if not 0 < share < 1:
            raise ValueError(f"regret.share must be above 0 and below 1, got {share!r}")
        self.share = share

    def begin(
        self, setting: Setting, values: Float[Tensor, "b n c"], rows: slice | None, generator: torch.Generator
    ) -> Begun:
        """The first mode's for all rows, the second's for its own."""
        few = self._few(len(values))
        own = None if rows is None else slice(rows.start, rows.start + few)
        return (
            self.first.begin(setting, values, rows, generator),
            self.second.begin(setting, values[:few], own, generator),
        )

    def find(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        begun: Begun,
        truthful: Outcome | None = None,
        run: Run = directly,
    ) -> Float[Tensor, "*b n r"]:
        """The second mode's misreports take the place of the first mode's in its rows.

        The second mode is not told the truthful outcome: it is that of other rows, too.
        """
        few = self._few(values.shape[-3])
        most = self.first.find(mechanism, setting, values, begun[0], truthful, run)
        own = values[..., :few, :, :].detach()
        far = self.second.find(mechanism, setting, own, begun[1], None, run)
        return torch.cat([far, most[..., few:, :, :]], -3)

    def store(self, rows: slice | None, misreport: Float[Tensor, "b n r"]) -> None:
        """In each what is its own."""
        few = self._few(len(misreport))
        self.first.store(rows, misreport)
        self.second.store(None if rows is None else slice(rows.start, rows.start + few), misreport[:few])

    def _few(self, batch: int) -> int:
        return max(1, round(self.share * batch))


class Curriculum(Combined):
    """One mode until a share of training is over, then the other, which takes over the kept misreports.

    Args:
        first, second: the modes.
        fraction: share of training after which the second takes over, above 0 and below 1.
    """

    combines_searches = False

    def __init__(self, first: RegretMode, second: RegretMode, fraction: float) -> None:
        super().__init__(first, second)
        if not 0 < fraction < 1:
            raise ValueError(f"regret.fraction must be above 0 and below 1, got {fraction!r}")
        self.fraction = fraction
        self.evaluations = max(first.evaluations, second.evaluations)
        self.fixed_step = second.fixed_step

    def at(self, progress: float) -> RegretMode:
        """The mode whose turn it is."""
        return (self.first if progress < self.fraction else self.second).at(progress)

    def prepare(self, setting: Setting, sample: Float[Tensor, "s n c"] | None, generator: torch.Generator) -> None:
        """Both; what they keep is one and the same, so that nothing needs to be handed over."""
        super().prepare(setting, sample, generator)
        self._share()

    def _share(self) -> None:
        keepers = [part for part in self.modules() if getattr(part, "kept", None) is not None]
        for part in keepers:
            part.kept = keepers[0].kept

    def _apply(self, *arguments: Any, **options: Any) -> Curriculum:
        """To another device or precision, with one copy of what is kept, not several."""
        super()._apply(*arguments, **options)
        self._share()
        return self

    def begin(
        self, setting: Setting, values: Float[Tensor, "b n c"], rows: slice | None, generator: torch.Generator
    ) -> Begun:
        """It searches nothing itself."""
        raise NotImplementedError("ask at(progress) for the mode")

    def find(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        begun: Begun,
        truthful: Outcome | None = None,
        run: Run = directly,
    ) -> Float[Tensor, "*b n r"]:
        """It searches nothing itself."""
        raise NotImplementedError("ask at(progress) for the mode")


class Reciprocal(RegretMode):
    """Both sides of local incentive compatibility at the misreport b_i that another mode finds (paper, footnote 1).

    Beside the gain of reporting b_i at the value v_i, that of reporting v_i at the value b_i, which the same two
    outcomes tell: regret is the mean over the batch of relu(u_i(v_i; b_i) - u_i(v_i; v_i)) + relu(u_i(b_i; v_i) -
    u_i(b_i; b_i)), the others truthful.

    Args:
        mode: finds the misreports.
    """

    def __init__(self, mode: RegretMode) -> None:
        super().__init__()
        check_part(mode)
        self.mode = mode
        self.local, self.evaluations, self.staged = mode.local, mode.evaluations, mode.staged
        self.fixed_step, self.starts_at_truth, self.learns = mode.fixed_step, mode.starts_at_truth, mode.learns

    def prepare(self, setting: Setting, sample: Float[Tensor, "s n c"] | None, generator: torch.Generator) -> None:
        """As the mode."""
        self.mode.prepare(setting, sample, generator)

    def begin(
        self, setting: Setting, values: Float[Tensor, "b n c"], rows: slice | None, generator: torch.Generator
    ) -> Begun:
        """As the mode."""
        return self.mode.begin(setting, values, rows, generator)

    def find(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        begun: Begun,
        truthful: Outcome | None = None,
        run: Run = directly,
    ) -> Float[Tensor, "*b n r"]:
        """As the mode."""
        return self.mode.find(mechanism, setting, values, begun, truthful, run)

    def forward(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        truthful: Outcome,
        misreport: Float[Tensor, "*b n r"],
    ) -> Float[Tensor, "*p n"]:
        """The gains of both sides."""
        values = values.detach()
        deviation = deviation_outcome(mechanism, values, misreport)
        gain = utility(values, deviation) - utility(values, truthful)
        back = utility(misreport, truthful) - utility(misreport, deviation)
        return (gain.relu() + back.relu()).mean(-2)

    def store(self, rows: slice | None, misreport: Float[Tensor, "b n r"]) -> None:
        """As the mode."""
        self.mode.store(rows, misreport)
