"""Many result.json files as one table and one picture. Needs no torch."""

from truthful.report.cards import Card, find_cards
from truthful.report.columns import sorted_by, with_columns
from truthful.report.curves import Learning, find_learning, save_curves
from truthful.report.equal_regret import equal_regret, frontiers
from truthful.report.jobs import Sweep, find_sweeps
from truthful.report.known import known_table
from truthful.report.picture import save_frontier
from truthful.report.rendering import FORMATS, markdown, replace_between_marks, show
from truthful.report.rows import Row, make_rows
from truthful.report.table import Table, results_table

__all__ = [
    "FORMATS",
    "Card",
    "Learning",
    "Row",
    "Sweep",
    "Table",
    "equal_regret",
    "find_cards",
    "find_learning",
    "find_sweeps",
    "frontiers",
    "known_table",
    "make_rows",
    "markdown",
    "replace_between_marks",
    "results_table",
    "save_curves",
    "save_frontier",
    "show",
    "sorted_by",
    "with_columns",
]
