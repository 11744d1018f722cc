"""Tables in every format, and pages that contain them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from truthful.errors import UserError
from truthful.report.columns import is_text, shown
from truthful.report.latex import latex
from truthful.report.table import Table
from truthful.report.terminal import terminal
from truthful.results import write_text


def markdown(table: Table) -> str:
    """As a page has it."""
    lines = [*_paragraphs(table.heading)]
    if table.rows:
        heads = {name: head for name, head in table.columns.items() if head}
        lines += ["", _line(heads.values())]
        lines += [_line("---" if is_text(table, name) else "---:" for name in heads)]
        lines += [_line(shown(row, name) for name in heads) for row in table.rows]
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
    "latex": latex,
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


def _paragraphs(heading: Sequence[str]) -> list[str]:
    return [line for k, text in enumerate(heading) for line in ([text] if k == 0 else ["", text])]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _bare(entry: object) -> object:
    return "" if entry is None else f"{entry:.7g}" if isinstance(entry, float) else entry
