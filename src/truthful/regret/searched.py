"""Regret at the misreport that one search arrives at: standard, local, local_persistent, multiscale, noisy."""

from __future__ import annotations

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.mechanisms.base import Mechanism
from truthful.regret.ascent import gradient_at_truth
from truthful.regret.base import Begun, RegretMode, Run, Search, check_sufficiency, directly
from truthful.regret.starts import Start, TruthfulStart
from truthful.settings.base import Setting
from truthful.shapes import Float

UNROLLED = 2
"""Searches of up to so many steps are executed together with what follows, longer ones step by step before it."""


class SearchedRegret(RegretMode):
    """relu(u_i(v_i; (b_i, v_-i)) - u_i(v_i; v)) at the search's last iterate b_i, the mean over the batch.

    Args:
        search: how misreports are found.
        start: where they start: at every visit, or, if they are kept, before the first.
        keep: keep the last iterate of each training profile and start the next visit there, even where it is worse.
        local: whether truthfulness rests on the sufficiency of local incentive compatibility.
        assume_sufficient: use a local mode although that sufficiency is not known for the setting.
    """

    kept: Tensor | None
    """The kept misreports, one row for each row of the training sample."""

    def __init__(self, search: Search, start: Start, keep: bool, local: bool, assume_sufficient: bool) -> None:
        super().__init__()
        self.search, self.start, self.keep, self.local = search, start, keep, local
        self.assume_sufficient = assume_sufficient
        self.evaluations = search.steps
        self.staged = search.steps > UNROLLED
        self.starts_at_truth = isinstance(start, TruthfulStart) and not keep and not self.staged
        self.fixed_step = local and not keep and isinstance(start, TruthfulStart) and not search.varies
        self.register_buffer("kept", None)

    def prepare(self, setting: Setting, sample: Float[Tensor, "s n c"] | None, generator: torch.Generator) -> None:
        """Check the preconditions; allocate the kept misreports."""
        if self.local and not self.assume_sufficient:
            check_sufficiency(setting)
        if not self.keep:
            return
        if sample is None:
            raise ValueError(
                "this regret mode keeps a misreport for each profile of a fixed training sample, and data=fresh has "
                "no fixed sample; use data=fixed, or keep=false in the mode (regret.keep=false)"
            )
        self.kept = self.start(setting, sample, generator).clone()

    def begin(
        self, setting: Setting, values: Float[Tensor, "b n c"], rows: slice | None, generator: torch.Generator
    ) -> Begun:
        """The starting misreports, and what the search draws."""
        start = self.start(setting, values, generator) if self.kept is None else self.kept[rows]
        return start, *self.search.draw(values, generator)

    def find(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        begun: Begun,
        truthful: Outcome | None = None,
        run: Run = directly,
    ) -> Float[Tensor, "*b n r"]:
        """The last iterate; at the truth the first gradient comes from the truthful outcome."""
        gradient = (
            gradient_at_truth(setting, values, truthful) if self.starts_at_truth and truthful is not None else None
        )
        start, *drawn = begun
        return self.search.climb(mechanism, setting, values.detach(), start, tuple(drawn), gradient, run)

    def store(self, rows: slice | None, misreport: Float[Tensor, "b n r"]) -> None:
        """Even where it is worse than the one before."""
        if self.kept is not None:
            self.kept[rows] = misreport
