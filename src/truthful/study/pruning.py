"""When a trial is not worth going on with. Optuna prunes by one objective; this is a rule for two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high, median_low
from typing import NamedTuple

from truthful.errors import UserError
from truthful.series import METRICS, read_metrics


class Audited(NamedTuple):
    """What an audit on held-out profiles during training found."""

    revenue: float
    regret: float


@dataclass(frozen=True)
class Pruning:
    """Stop a trial that others leave behind in both objectives.

    At an audit a trial is *behind* if more than half of the others earn more at that iteration and more than half have
    less regret there. At least one then does both; a trial that no other beats never is behind. It is *worthless* if it
    earns less than `least` times their median: what sells nothing has no regret, either, and would stay for ever. A
    trial that was one or the other at `patience` audits in a row is stopped.

    The others are all trials that were audited at that iteration, stopped ones among them as far as they came.

    Args:
        audits: their number, evenly over training.
        after: share of training before which nothing counts.
        others: how many there must be to compare with.
        patience: audits in a row.
        least: share of the median revenue, 0: never worthless.
    """

    audits: int
    after: float
    others: int
    patience: int
    least: float

    def __post_init__(self) -> None:
        for key, least in (("audits", 1), ("others", 1), ("patience", 1)):
            number = getattr(self, key)
            if type(number) is not int or number < least:
                raise UserError(f"study.pruning.{key} must be a whole number of at least {least}, got {number!r}")
        for key in ("after", "least"):
            share = getattr(self, key)
            if type(share) not in (int, float) or not 0 <= share < 1:
                raise UserError(f"study.pruning.{key} must be at least 0 and below 1, got {share!r}")

    def stops(self, own: Mapping[int, Audited], others: Sequence[Mapping[int, Audited]], iterations: int) -> str | None:
        """Why a trial is stopped now, in words; None if it goes on.

        Args:
            own: the audits of the trial so far, by iteration.
            others: those of the other trials.
            iterations: of the whole training.
        """
        counting = [iteration for iteration in sorted(own) if iteration >= self.after * iterations]
        reasons = [self._objection(own[iteration], _at(iteration, others)) for iteration in counting[-self.patience :]]
        if len(reasons) < self.patience or None in reasons:
            return None
        return f"{reasons[-1]} after {counting[-1]:,} of {iterations:,} iterations"

    def _objection(self, own: Audited, others: Sequence[Audited]) -> str | None:
        if len(others) < self.others:
            return None
        revenue = median_low(other.revenue for other in others)
        regret = median_high(other.regret for other in others)
        if own.revenue < self.least * revenue:
            return f"revenue {own.revenue:.4f} (median of the others {revenue:.4f})"
        if own.revenue < revenue and own.regret > regret:
            return (
                f"revenue {own.revenue:.4f} and regret {own.regret:.5f} "
                f"(medians of the others {revenue:.4f} and {regret:.5f})"
            )
        return None


def _at(iteration: int, trials: Sequence[Mapping[int, Audited]]) -> list[Audited]:
    return [trial[iteration] for trial in trials if iteration in trial]


def audits(folder: Path) -> dict[int, Audited]:
    """The held-out audits of a run so far, by iteration."""
    path = folder / METRICS
    entries = [entry for run in read_metrics(path) for entry in run.entries] if path.exists() else []
    return {
        entry["iteration"]: Audited(entry["held_out/revenue"], entry["held_out/regret"])
        for entry in entries
        if None not in (entry.get("held_out/revenue"), entry.get("held_out/regret"))
    }
