r"""Tables for a paper: a tabular to \input, with the rules of booktabs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from truthful.report.columns import fitting, is_text, shown
from truthful.report.table import Table

PAGE = 100
"""Characters that fit across a page."""
NUMBER = r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?"
FORMULA = re.compile(rf"(?<!\S)(?:{NUMBER} ± {NUMBER}|[≥≤=] {NUMBER}|{NUMBER})(?=[\s,]|$)")
SIGNS = {"±": r"\pm", "≥": r"\geq", "≤": r"\leq"}
ESCAPED = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{sign: f"${tex}$" for sign, tex in SIGNS.items()},
    **{sign: f"${sign}$" for sign in "<>|"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def latex(table: Table) -> str:
    """Needs the package booktabs. What must be known to read the numbers is in comments."""
    if not table.rows:
        return "".join(f"% {text}\n" for text in table.heading)
    widths, left_out = fitting(table, PAGE)
    notes = [r"Needs \usepackage{booktabs}.", *table.heading]
    if left_out:
        notes.append(f"Left out for want of room (--columns to choose): {', '.join(left_out)}.")
    lines = [f"% {note}" for note in notes]
    lines.append(rf"\begin{{tabular}}{{{''.join('l' if is_text(table, name) else 'r' for name in widths)}}}")
    lines += [r"\toprule", _line(table.columns[name] for name in widths), r"\midrule"]
    for k, row in enumerate(table.rows):
        if k > 0 and row["setting"] != table.rows[k - 1]["setting"]:
            lines.append(r"\midrule")
        lines.append(_line(shown(row, name) for name in widths))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def escaped(text: str) -> str:
    """A text with its numbers as formulas."""
    if text == "-":
        return "--"
    parts, end = [], 0
    for match in FORMULA.finditer(text):
        parts += [_plain(text[end : match.start()]), f"${_formula(match.group())}$"]
        end = match.end()
    return "".join([*parts, _plain(text[end:])])


def _formula(text: str) -> str:
    text = re.sub(r"e(-?\d+)", r" \\cdot 10^{\1}", text.replace(",", "{,}"))
    return "".join(SIGNS.get(sign, sign) for sign in text)


def _plain(text: str) -> str:
    return "".join(ESCAPED.get(sign, sign) for sign in text)


def _line(cells: Iterable[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"
