"""Many result.json files as one table and one picture. Needs no torch."""

from truthful.report.cards import Card, find_cards
from truthful.report.equal_regret import equal_regret, frontiers
from truthful.report.known import known_table
from truthful.report.picture import save_frontier
from truthful.report.rendering import FORMATS, markdown, replace_between_marks, show
from truthful.report.rows import Row, make_rows
from truthful.report.table import Table, results_table

__all__ = [
    "FORMATS",
    "Card",
    "Row",
    "Table",
    "equal_regret",
    "find_cards",
    "frontiers",
    "known_table",
    "make_rows",
    "markdown",
    "replace_between_marks",
    "results_table",
    "save_frontier",
    "show",
]
