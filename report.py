"""Put results together: one table, pictures, how far a sweep is.

python report.py multirun/table1                               every result.json in a tree, as a table
python report.py results/table1 --format latex                 or markdown, csv
python report.py multirun/search --sort revenue --columns setting,method,optimizer.lr,revenue,regret
python report.py multirun/frontier --frontier frontier.png     revenue against regret, and revenue at equal regret
python report.py multirun/table1 --curves curves.png           learning curves, also of runs under way
python report.py results/table1 --readme README.md             put tables between <!-- table1 -->, <!-- known --> marks
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from truthful.ceilings import best_truthful, named_bounds
from truthful.errors import UserError
from truthful.report import (
    FORMATS,
    equal_regret,
    find_cards,
    find_learning,
    find_sweeps,
    frontiers,
    known_table,
    make_rows,
    markdown,
    replace_between_marks,
    results_table,
    save_curves,
    save_frontier,
    show,
    sorted_by,
    with_columns,
)
from truthful.series import METRICS

RESULTS = Path(__file__).resolve().parent / "results"
KNOWN = (RESULTS / "baselines", RESULTS / "bounds")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, warn, show; a mistake of the user is one sentence on stderr and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path, help="folders, or result.json files under any name")
    parser.add_argument("--format", choices=FORMATS, default="terminal")
    parser.add_argument("--columns", metavar="NAMES", help="of the CSV file, with commas between them")
    parser.add_argument("--sort", metavar="COLUMN", help="order the rows of each setting by a column")
    parser.add_argument("--curves", type=Path, metavar="PNG", help="draw learning curves")
    parser.add_argument("--frontier", type=Path, metavar="PNG", help="draw and compare revenue at equal regret")
    parser.add_argument(
        "--readme",
        type=Path,
        metavar="PAGE",
        help="put this table, and what is known, into a page",
    )
    options = parser.parse_args(arguments)
    try:
        report(options)
    except (UserError, OSError) as error:
        sys.stderr.write(f"report.py: {error}\n")
        raise SystemExit(1) from None


def report(options: argparse.Namespace) -> None:
    """What `main` was asked for."""
    cards, unread = find_cards(options.results)
    sweeps = find_sweeps(options.results)
    rows, doubled = make_rows(cards, named_bounds(KNOWN[1]), best_truthful(KNOWN[0]))
    for warning in [*unread, *doubled, *(warning for sweep in sweeps for warning in sweep.warnings())]:
        sys.stderr.write(f"report.py: warning: {warning}\n")
    learning = find_learning(options.results) if options.curves else []
    where = ", ".join(map(str, options.results))
    if options.curves and not learning:
        raise UserError(f"there is no {METRICS} of a run in {where}: no curve to draw")
    if not rows and not sweeps and not learning:
        raise UserError(f"there is no result in {where}")
    columns = options.columns.split(",") if options.columns else []
    tables = [results_table(rows, [*columns, *filter(None, [options.sort])])]
    if rows and options.sort:
        tables[0] = sorted_by(tables[0], options.sort)
    if rows and columns:
        tables[0] = with_columns(tables[0], columns)
    if options.curves:
        save_curves(learning, options.curves)
    if options.readme:
        texts = {"table1": markdown(tables[0]), "known": markdown(known_table(*KNOWN))}
        replace_between_marks(options.readme, texts)
    if options.frontier:
        found = frontiers(rows)
        save_frontier(found, options.frontier)
        tables.append(equal_regret(found))
    sys.stdout.write(show(tables, options.format))
    sys.stdout.flush()
    states = "".join(f"{line}\n" for sweep in sweeps for line in sweep.summary())
    (sys.stdout if options.format == "terminal" else sys.stderr).write(states and f"\n{states}")


if __name__ == "__main__":
    main()
