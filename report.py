"""Put results together: one table, one picture.

python report.py multirun/table1                               every result.json in a tree, as a table
python report.py results/table1 --format markdown              or csv
python report.py multirun/frontier --frontier frontier.png     revenue against regret, and revenue at equal regret
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
    frontiers,
    known_table,
    make_rows,
    markdown,
    replace_between_marks,
    results_table,
    save_frontier,
    show,
)

RESULTS = Path(__file__).resolve().parent / "results"
KNOWN = (RESULTS / "baselines", RESULTS / "bounds")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, warn, show; a mistake of the user is one sentence on stderr and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path, help="folders, or result.json files under any name")
    parser.add_argument("--format", choices=FORMATS, default="terminal")
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
    rows, doubled = make_rows(cards, named_bounds(KNOWN[1]), best_truthful(KNOWN[0]))
    for warning in unread + doubled:
        sys.stderr.write(f"report.py: warning: {warning}\n")
    if not rows:
        raise UserError(f"there is no result in {', '.join(map(str, options.results))}")
    tables = [results_table(rows)]
    if options.frontier:
        found = frontiers(rows)
        save_frontier(found, options.frontier)
        tables.append(equal_regret(found))
    if options.readme:
        texts = {"table1": markdown(tables[0]), "known": markdown(known_table(*KNOWN))}
        replace_between_marks(options.readme, texts)
    sys.stdout.write(show(tables, options.format))


if __name__ == "__main__":
    main()
