"""Tables for a terminal, a page and a spreadsheet."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from truthful.errors import UserError
from truthful.report.table import Table
from truthful.results import write_text

TEXT_COLUMNS = ("setting", "method", "error_over", "audit")


def terminal(table: Table) -> str:
    """As wide as it needs to be, however narrow the terminal is."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Grid

    output = io.StringIO()
    if table.rows:
        shown = _shown(table)
        grid = Grid(box=SIMPLE_HEAD, pad_edge=False)
        for name, head in shown.items():
            grid.add_column(
                "\n".join(textwrap.wrap(head, 10)), justify="left" if name in TEXT_COLUMNS else "right", no_wrap=True
            )
        for k, row in enumerate(table.rows):
            if k > 0 and row["setting"] != table.rows[k - 1]["setting"]:
                grid.add_section()
            grid.add_row(*(row.get(name, (None, ""))[1] for name in shown))
        console = Console(file=output, width=400)
        console.print(grid, crop=False)
    return "\n".join(line.rstrip() for line in [*table.heading, *output.getvalue().splitlines()]).rstrip() + "\n"


def markdown(table: Table) -> str:
    """As a page has it."""
    lines = [*_paragraphs(table.heading)]
    if table.rows:
        shown = _shown(table)
        lines += ["", _line(shown.values())]
        lines += [_line("---" if name in TEXT_COLUMNS else "---:" for name in shown)]
        lines += [_line(row.get(name, (None, ""))[1] for name in shown) for row in table.rows]
    return "\n".join(lines) + "\n"


def comma_separated(table: Table) -> str:
    """Bare numbers, for a spreadsheet or a script."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(table.columns)
    for row in table.rows:
        writer.writerow([_bare(row.get(name, (None, ""))[0]) for name in table.columns])
    return output.getvalue()


FORMATS: dict[str, Callable[[Table], str]] = {
    "terminal": terminal,
    "markdown": markdown,
    "csv": comma_separated,
}


def show(tables: Sequence[Table], form: str) -> str:
    """All tables in one of FORMATS, an empty line between them."""
    return "\n".join(FORMATS[form](table) for table in tables)


def replace_between_marks(page: Path, texts: Mapping[str, str]) -> None:
    """Put texts between the marks of a page, by name. Raises UserError if it does not have them all."""
    content = page.read_text()
    for name, text in texts.items():
        opening, closing = _marks(name)
        before, begin, rest = content.partition(opening)
        _, end, after = rest.partition(closing)
        if not begin or not end:
            raise UserError(f"{page} needs a line {opening.strip()} and after it a line {closing}")
        content = before + begin + text + end + after
    write_text(page, content)


def between_marks(page: Path, name: str) -> str:
    """What `replace_between_marks` would replace."""
    opening, closing = _marks(name)
    return page.read_text().partition(opening)[2].partition(closing)[0]


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name} -->\n", f"<!-- /{name} -->"


def _shown(table: Table) -> dict[str, str]:
    return {name: head for name, head in table.columns.items() if head}


def _paragraphs(heading: Sequence[str]) -> list[str]:
    return [line for k, text in enumerate(heading) for line in ([text] if k == 0 else ["", text])]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _bare(entry: object) -> object:
    return "" if entry is None else f"{entry:.7g}" if isinstance(entry, float) else entry
