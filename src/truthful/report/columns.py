"""Which columns of a table are shown, and in which order its rows are."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from truthful.errors import UserError, nearest
from truthful.report.table import Cell, Table

DISPENSABLE = (
    "audited_over_training",
    "train_regret_sum",
    "error_over",
    "speed_up",
    "regret_p95",
    "ceiling",
    "samples",
    "train_seconds",
    "audit",
    "regret_ratio",
    "iterations",
    "regret_max",
    "seeds",
)
"""What is left out first where there is no room, in this order."""
TELLING = ("iterations", "audit", "samples")
"""They stay where rows of one setting and method differ in them."""
BETWEEN = 2
"""Characters between two columns."""


def with_columns(table: Table, names: Sequence[str]) -> Table:
    """These columns only, by their names in a CSV file; a UserError for one that is not there."""
    return replace(table, columns={_known(table, name): table.columns[name] or name for name in names}, chosen=True)


def sorted_by(table: Table, name: str) -> Table:
    """The rows of each setting, published ones among them, from the smallest to the largest in a column."""
    _known(table, name)

    def place(row: dict[str, tuple[Cell, str]]) -> tuple[Any, ...]:
        entry = row.get(name, (None, ""))[0]
        return (0, 0, "") if entry is None else (2, 0, entry) if isinstance(entry, str) else (1, entry, "")

    groups = (list(group) for _, group in groupby(table.rows, key=lambda row: row["setting"]))
    return replace(table, rows=[row for group in groups for row in sorted(group, key=place)])


def _known(table: Table, name: str) -> str:
    if name not in table.columns:
        meant = nearest(name, table.columns)
        question = f"; did you mean {meant}?" if meant else "."
        raise UserError(f"there is no column {name!r}{question} There are {', '.join(table.columns)}")
    return name


def shown(row: dict[str, tuple[Cell, str]], name: str) -> str:
    """What a person sees of a cell."""
    entry, text = row.get(name, (None, ""))
    return text or ("" if entry is None else f"{entry:.7g}" if isinstance(entry, float) else str(entry))


def head_lines(head: str) -> list[str]:
    """A head in several short lines."""
    return textwrap.wrap(head, 10)


def fitting(table: Table, width: int | None) -> tuple[dict[str, int], list[str]]:
    """The columns for a person, each with its width in characters; and what had to be left out.

    All, where `width` is None or a person chose them.
    """
    heads = {name: head for name, head in table.columns.items() if head}
    widths = {
        name: max(map(len, [*head_lines(head), *(shown(row, name) for row in table.rows)]))
        for name, head in heads.items()
    }
    empty = [name for name in heads if all(shown(row, name) in ("", "-") for row in table.rows)]
    needed = {name for name in TELLING if _tells(table, name)}
    left_out: list[str] = []
    for name in dict.fromkeys([*empty, *DISPENSABLE]):
        if name in needed:
            continue
        if width is None or table.chosen or sum(widths.values()) + BETWEEN * (len(widths) - 1) <= width:
            break
        if widths.pop(name, None) is not None:
            left_out.append(name)
    return widths, left_out


def _tells(table: Table, name: str) -> bool:
    keys = {(shown(row, "setting"), shown(row, "method")) for row in table.rows}
    return len({(shown(row, "setting"), shown(row, "method"), shown(row, name)) for row in table.rows}) > len(keys)


def is_text(table: Table, name: str) -> bool:
    """Whether a column has words in it, not numbers."""
    return any(isinstance(row.get(name, (None, ""))[0], str) for row in table.rows)
