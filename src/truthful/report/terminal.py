"""Tables for a terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from itertools import groupby, zip_longest

from truthful.report.columns import BETWEEN, fitting, head_lines, is_text, shown
from truthful.report.table import Table

LONG = 40
"""With more rows than these every setting has the heads again."""


def terminal(table: Table) -> str:
    """No wider than the terminal, if that is where it goes; a file has all columns."""
    return for_width(table, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)


def for_width(table: Table, width: int | None) -> str:
    """With as many columns as there is room for; what is left out is named."""
    heading = list(table.heading)
    lines: list[str] = []
    if table.rows:
        widths, left_out = fitting(table, width)
        if left_out:
            heading.append(f"Left out for want of room (--columns to choose): {', '.join(left_out)}.")
        lines = _grid(table, widths)
    if width is not None:
        heading = [line for text in heading for line in textwrap.wrap(text, width)]
    return "\n".join(line.rstrip() for line in [*heading, *lines]) + "\n"


def _grid(table: Table, widths: dict[str, int]) -> list[str]:
    """The heads, and the rows with an empty line between settings."""
    align = {name: "<" if is_text(table, name) else ">" for name in widths}

    def line(cells: list[str]) -> str:
        padded = (f"{cell:{align[name]}{widths[name]}}" for cell, name in zip(cells, widths, strict=True))
        return (" " * BETWEEN).join(padded)

    broken = [head_lines(table.columns[name])[::-1] for name in widths]
    heads = [line(list(part)) for part in zip_longest(*broken, fillvalue="")][::-1]
    heads.append("─" * (sum(widths.values()) + BETWEEN * (len(widths) - 1)))
    lines: list[str] = []
    for _, section in groupby(table.rows, key=lambda row: row["setting"]):
        lines += ["", *heads] if not lines or len(table.rows) > LONG else [""]
        lines += [line([shown(row, name) for name in widths]) for row in section]
    return lines
