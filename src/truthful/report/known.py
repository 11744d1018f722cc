"""What truthful auctions earn in each setting: the classical ones, the best known one, the optimum or a bound."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from truthful.ceilings import best_truthful, named_bounds, read_cards, rounded_up
from truthful.report.table import Cell, Table

CLASSICAL = {"vcg": "VCG", "itemwise_myerson": "item-wise Myerson", "bundled_myerson": "bundled Myerson"}
COLUMNS = {
    "setting": "setting",
    **CLASSICAL,
    "best": "best known, fitted or by theorem",
    "best_se": "",
    "best_name": "",
    "ceiling": "optimum or upper bound",
    "ceiling_kind": "",
    "gap": "unknown at most",
}
HEADING = (
    "Expected revenue of auctions in which no lie pays (theorems): exact, or ± one standard error over the profiles of "
    "`python baselines.py setting=<setting>`; = is the exact optimum, ≤ the 99 % limit of an upper bound on every "
    "truthful auction (`python bounds.py setting=<setting>`). What is unknown is between the two, at 99 %."
)


def known_table(baselines: Path, bounds: Path) -> Table:
    """A row for each card of `baselines.py` whose setting has an optimum or a bound.

    Args:
        baselines, bounds: folders of cards.
    """
    best, limits = best_truthful(baselines), named_bounds(bounds)
    rows = []
    for card in read_cards(baselines, "auctions"):
        name, optimum = card["setting"], card["optimum"]
        if card["setting_overridden"] or name not in best or not (optimum or name in limits):
            continue
        ceiling = optimum["revenue"] if optimum else limits[name]
        champion = best[name]
        error = f" ± {champion.error:.4f}" if champion.error else ""
        gap = max(0.0, 1 - champion.least / ceiling)
        shown = f"= {ceiling:.4f}" if optimum else f"≤ {rounded_up(ceiling)}"
        rows.append(
            {
                "setting": (name, name),
                **{auction: _classical(card, auction) for auction in CLASSICAL},
                "best": (champion.revenue, f"{champion.revenue:.4f}{error} ({champion.name})"),
                "best_se": (champion.error, ""),
                "best_name": (champion.name, ""),
                "ceiling": (ceiling, shown),
                "ceiling_kind": ("optimum" if optimum else "bound", ""),
                "gap": (gap, f"{math.ceil(gap * 1e3 - 1e-6) / 10:.1f} %"),
            }
        )
    return Table([HEADING], COLUMNS, rows)


def _classical(card: dict[str, Any], name: str) -> tuple[Cell, str]:
    auction = next((one for one in card["auctions"] if one["name"] == name), None)
    if auction is None:
        return None, "-"
    error = f" ± {auction['controlled_se']:.4f}" if auction["controlled_se"] else ""
    return auction["controlled"], f"{auction['controlled']:.4f}{error}"
