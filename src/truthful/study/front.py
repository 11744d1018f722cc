"""What a study has found: the trials that no other beats in revenue and regret at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from truthful.ceilings import KnownAuction
from truthful.results import RESULT, read_json
from truthful.study.trials import Outcome, Stage, Trials

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Finished:
    """A trial that has come to its end."""

    outcome: Outcome
    content: dict[str, Any]
    """Of its result.json."""
    best: bool
    """Whether no other trial beats it in both objectives."""
    first: bool
    """Whether it has the recipe's own values."""

    @property
    def audit(self) -> dict[str, Any]:
        """The final one."""
        audit: dict[str, Any] = self.content["audit"]
        return audit


def finished(trials: Trials, recipe: tuple[str, ...]) -> list[Finished]:
    """The trials that are complete, by regret.

    Args:
        trials: of the study.
        recipe: the overrides of the trial that has the recipe's own values; empty: there is none.
    """
    best = trials.best()
    complete = [outcome for outcome in trials.outcomes() if outcome.stage is Stage.COMPLETE]
    found = [
        Finished(one, read_json(one.folder / RESULT), one.number in best, one.overrides == recipe) for one in complete
    ]
    return sorted(found, key=lambda one: (one.audit["regret"], -one.audit["revenue"]))


def show_front(console: Console, trials: Sequence[Finished], rival: KnownAuction | None) -> None:
    """The front as a table, and the recipe's own trial.

    Args:
        console: where to show it, wide enough for all columns.
        trials: those that are complete, in the order of the table.
        rival: the best truthful auction known.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = [one for one in trials if one.best or one.first]
    audit = shown[0].audit
    grid = Table(
        title=f"No other trial earns more at less regret (audit={audit['tier']}, {audit['samples']:,} profiles)",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    keys = [override.partition("=")[0].replace(".", "\n.") for override in shown[0].outcome.overrides]
    for head in ("trial", *keys, "revenue", "regret, mean\nover bidders", "regret sum\n/ revenue"):
        grid.add_column(head, justify="right", no_wrap=True)
    for one in shown:
        audit = one.audit
        beaten = rival is not None and audit["revenue"] < rival.least
        grid.add_row(
            str(one.outcome.number),
            *(override.partition("=")[2] for override in one.outcome.overrides),
            f"{audit['revenue']:.4f} ± {audit['revenue_se']:.4f}",
            f"{audit['regret']:.5f} ± {audit['regret_se']:.5f}",
            f"{audit['regret_ratio']:.5f}",
            style="dim" if beaten else None,
        )
    console.print(grid, crop=False)
    for one in shown:
        note = ", with the recipe's own values" if one.first else ""
        note += "" if one.best else "; others earn more at less regret"
        console.print(f"{one.outcome.number:5}  {one.outcome.folder}{note}", soft_wrap=True, highlight=False)
    if rival is not None:
        below = sum(one.audit["revenue"] < rival.least for one in shown)
        line = f"{rival.name}, in which no lie pays, earns {rival.revenue:.4f}: more than {below} of these {len(shown)}"
        console.print(line, soft_wrap=True, highlight=False)
