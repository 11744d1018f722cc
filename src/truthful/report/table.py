"""The table of all results, with the published ones beside them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import Any

from truthful.ceilings import rounded_up
from truthful.published import TABLE_1
from truthful.report.choices import typed
from truthful.report.rows import Row, names, telling

Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """A heading, columns, and rows of cells; numbers come with what they are shown as."""

    heading: list[str]
    columns: dict[str, str]
    """The name of each column in a CSV file, and its head for a person: an empty head is for the file alone."""
    rows: list[dict[str, tuple[Cell, str]]]
    """For each row and column the bare number and what a person sees."""
    chosen: bool = False
    """Whether a person chose the columns: then all of them are shown, whatever the room."""


COLUMNS = {
    "setting": "setting",
    "method": "method",
    "seeds": "seeds",
    "iterations": "iterations",
    "revenue": "revenue",
    "revenue_se": "",
    "regret": "regret",
    "regret_se": "",
    "error_over": "± over",
    "regret_ratio": "regret sum / revenue",
    "regret_p95": "p95",
    "regret_max": "max",
    "audit": "audit",
    "samples": "profiles",
    "revenue_samples": "",
    "best_truthful": "",
    "ceiling": "best truthful auction",
    "ceiling_kind": "",
    "train_seconds": "training s",
    "speed_up": "speed-up",
    "train_regret_sum": "training's regret sum",
    "audited_over_training": "audited / training's",
}
NO_RESULTS = "No results yet: `python train.py sweep=table1`."


RENAMED = {"regret": "regret_mode"}
"""Choices that would have the name of another column."""


def results_table(rows: Sequence[Row], wanted: Collection[str] = ()) -> Table:
    """Every row, with what tells it from others; below each setting the published rows of Table 1.

    Args:
        rows: as `make_rows` orders them.
        wanted: columns to have of what was chosen, whether it tells rows apart or not.
    """
    cells: list[dict[str, tuple[Cell, str]]] = []
    told = telling(rows)
    known = {name for row in rows for name in row.facts}
    columns_of = {RENAMED.get(name, name): name for name in [*told, *sorted(known)]}
    chosen = {
        column: name
        for column, name in columns_of.items()
        if column not in COLUMNS and (name in told or column in wanted)
    }
    named = iter(names(rows))
    for _, group in groupby(rows, key=lambda row: row.setting):
        own = list(group)
        standard = _standard(own)
        cells += [_cells(row, next(named), chosen, _ratio_of_times(row, standard)) for row in own]
        if not own[0].first.get("setting_overridden"):
            cells += _published(own[0].first["setting"])
    before = {name: COLUMNS[name] for name in ("setting", "method")}
    columns = before | {column: column.replace("_", " ") for column in chosen} | COLUMNS
    columns |= {f"{name}_violation": f"{name} violation".replace("_", " ") for name in _constraints(rows)}
    timed = any(cell.get("speed_up", (None, ""))[0] is not None for cell in cells)
    if not timed:
        columns["speed_up"] = ""
    return Table(heading(rows, timed) if rows else [NO_RESULTS], columns, cells)


def heading(rows: Sequence[Row], timed: bool) -> list[str]:
    """What must be known to read the numbers; `timed`: there are speed-ups among them."""
    searches: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        searches.setdefault((row.audit[0], row.first["audit"].get("search", "?")), set()).add(row.first["setting"])
    speed_up = (
        "Speed-up is over `standard`, in seconds an iteration, where both are of one sweep and ran with the same "
        "engine, threads and population."
    )
    return [
        "Regret is the mean over bidders and a lower bound, found by the search that its row names; published regrets "
        "are lower bounds, too. Compare revenue at equal regret only.",
        "p95 and max are over profiles and bidders (and seeds). ± is one standard error; over seeds it is the spread "
        "of their audits, which share profiles where they share audit.seed. The best truthful auction earns "
        "exactly this, or at least what a known one earns (≥; `python baselines.py`) and at most an upper bound (≤; "
        "`python bounds.py`, docs/bounds.md), each with 99 % confidence.",
        *([speed_up] if timed else []),
        *(f"{tier} at {', '.join(sorted(at))}: {search}." for (tier, search), at in sorted(searches.items())),
    ]


def _cells(row: Row, label: str, chosen: dict[str, str], speed_up: float | None) -> dict[str, tuple[Cell, str]]:
    count, (tier, samples) = len(row.cards), row.audit
    trained_regret, seconds = row.training("regret_sum"), row.training("seconds")
    found, ceiling = row.audited("regret_sum"), row.ceiling
    together = (row.first.get("train") or {}).get("population") or 1
    shared = f" ({together} at once)" if together > 1 else ""
    cells: dict[str, tuple[Cell, str]] = {
        "setting": (row.setting, row.setting),
        "method": (label, label),
        "seeds": (count, str(count)),
        "iterations": _iterations(row),
        "error_over": ("seeds" if count > 1 else "profiles",) * 2,
        "regret_ratio": _number(_ratio(found, row.audited("revenue")), ".5f"),
        "regret_p95": _number(row.audited("regret_p95"), ".5f"),
        "regret_max": _number(row.largest_regret, ".4f"),
        "audit": (tier, tier),
        "samples": (samples, f"{samples:,}"),
        "revenue_samples": (row.first["audit"].get("revenue_samples", samples), ""),
        "best_truthful": (None, "") if row.best is None else (row.best.revenue, ""),
        "ceiling": (None if ceiling is None else ceiling[0], _known(row)),
        "ceiling_kind": (None if ceiling is None else ceiling[1], ""),
        "train_seconds": (seconds, "-" if seconds is None else f"{seconds:.0f}{shared}"),
        "speed_up": _number(speed_up, ".1f"),
        "train_regret_sum": _number(trained_regret, ".5f"),
        "audited_over_training": _number(_ratio(found, trained_regret), ".1f"),
    }
    cells |= {column: _chosen(row.facts[name]) for column, name in chosen.items() if name in row.facts}
    for name in _constraints([row]):
        cells[f"{name}_violation"] = _violation(row.constraint(name))
    for name, form in (("revenue", ".4f"), ("regret", ".5f")):
        mean, error = row.audited(name), row.error(name)
        cells |= {name: (mean, f"{mean:{form}} ± {error:{form}}"), f"{name}_se": (error, "")}
    return cells


def _known(row: Row) -> str:
    """What the best truthful auction earns: exactly, or at least and at most."""
    if row.ceiling is not None and row.ceiling[1] == "optimum":
        return f"{row.ceiling[0]:.4f}"
    least = "" if row.best is None else f"≥ {-math.ceil(-row.best.least * 1e4) / 1e4:.4f}"
    most = "" if row.ceiling is None else f"≤ {rounded_up(row.ceiling[0])}"
    return ", ".join(filter(None, (least, most))) or "-"


def _published(setting: str) -> list[dict[str, tuple[Cell, str]]]:
    return [
        {
            "setting": (setting, setting),
            "method": (
                f"published {row.method.removeprefix('RegretNet-')}",
                f"published {row.method.removeprefix('RegretNet-')}",
            ),
            "revenue": _number(row.revenue, ".4f"),
            "regret": _number(row.regret, ".5f"),
            "audit": ("published", "1000 starts"),
            "samples": (10_000, "10,000"),
            "train_seconds": (row.seconds, str(row.seconds)),
        }
        for (name, _), row in TABLE_1.items()
        if name == setting
    ]


def _constraints(rows: Sequence[Row]) -> list[str]:
    """The names of all constraints that results tell of."""
    return sorted({name for row in rows for card in row.cards for name in card.content.get("constraints") or ()})


def _violation(found: tuple[float, bool] | None) -> tuple[Cell, str]:
    return (None, "-") if found is None else (found[0], f"{found[0]:.5f} {'(met)' if found[1] else '(not met)'}")


def _iterations(row: Row) -> tuple[Cell, str]:
    planned = row.first.get("iterations")
    if not row.trained or planned is None:
        return None, "-"
    done = min(int(card.content["train"].get("completed", planned)) for card in row.cards)
    return done, f"{done:,}" if done >= planned else f"{done:,} of {planned:,}"


def _chosen(entry: Any) -> tuple[Cell, str]:
    number = isinstance(entry, int | float) and not isinstance(entry, bool)
    return entry if number else typed(entry), typed(entry)


def _standard(same_setting: Sequence[Row]) -> dict[tuple[Any, ...], float]:
    """Seconds an iteration of `standard`, by how it was executed."""
    seconds: dict[tuple[Any, ...], list[float]] = {}
    for row in same_setting:
        if (
            row.sweep
            and row.first.get("regret_mode") == "standard"
            and (known := row.training("seconds_per_iteration"))
        ):
            seconds.setdefault(row.execution, []).append(known)
    return {execution: fmean(several) for execution, several in seconds.items()}


def _ratio_of_times(row: Row, standard: dict[tuple[Any, ...], float]) -> float | None:
    """Seconds an iteration of `standard` over those of this row."""
    own, other = row.training("seconds_per_iteration"), standard.get(row.execution)
    return other / own if own and other else None


def _ratio(above: float, below: float | None) -> float | None:
    return above / below if below else None


def _number(number: Any, form: str) -> tuple[Cell, str]:
    return (None, "-") if number is None else (number, f"{number:{form}}")
