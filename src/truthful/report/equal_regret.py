"""Revenue at equal regret: what two methods can be compared by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from truthful.ceilings import rounded_up
from truthful.published import TABLE_1, PublishedRow
from truthful.report.choices import BUDGET, assignments
from truthful.report.rows import Row, families, telling
from truthful.report.table import Cell, Table

NOT_BRACKETED = "not bracketed"


@dataclass(frozen=True)
class Point:
    """One budget's mean over seeds, with standard errors."""

    regret: float
    regret_se: float
    revenue: float
    revenue_se: float


@dataclass(frozen=True)
class Frontier:
    """The runs of a setting that differ in their budget only: one method at several budgets."""

    setting: str
    label: str
    rows: tuple[Row, ...]
    """In order of regret."""

    @property
    def points(self) -> list[Point]:
        """Those with a regret above 0: their logarithms are what is compared."""
        return [
            Point(row.audited("regret"), row.error("regret"), row.audited("revenue"), row.error("revenue"))
            for row in self.rows
            if row.audited("regret") > 0
        ]

    @property
    def ceiling(self) -> tuple[float, str] | None:
        """What truthful auctions earn at most (`Row.ceiling`)."""
        return self.rows[0].ceiling

    def revenue_at(self, regret: float) -> tuple[float, float] | None:
        """Revenue and its standard error where the regret is `regret`; None unless two runs bracket it.

        Linear in the logarithm of regret between the neighbouring runs, whose errors in revenue and in regret are taken
        for independent.
        """
        for low, high in pairwise(self.points):
            if low.regret <= regret <= high.regret and low.regret < high.regret:
                share = math.log(regret / low.regret) / math.log(high.regret / low.regret)
                return low.revenue + share * (high.revenue - low.revenue), _error(low, high, share)
        return None

    def regret_at(self, revenue: float) -> tuple[float, float] | None:
        """Regret and its standard error where the revenue is `revenue`: the inverse of `revenue_at`."""
        for low, high in pairwise(self.points):
            if low.revenue <= revenue <= high.revenue and low.revenue < high.revenue and low.regret < high.regret:
                share = (revenue - low.revenue) / (high.revenue - low.revenue)
                regret = low.regret * (high.regret / low.regret) ** share
                return regret, regret * _error(low, high, share) / _slope(low, high)
        return None


def _slope(low: Point, high: Point) -> float:
    """Of revenue in the logarithm of regret."""
    return (high.revenue - low.revenue) / math.log(high.regret / low.regret)


def _error(low: Point, high: Point, share: float) -> float:
    """Standard error of the revenue at `share` of the way from `low` to `high`."""
    variance = sum(
        weight**2 * (point.revenue_se**2 + (_slope(low, high) * point.regret_se / point.regret) ** 2)
        for weight, point in ((1 - share, low), (share, high))
    )
    return math.sqrt(variance)


def frontiers(rows: Sequence[Row]) -> list[Frontier]:
    """Every method of every setting; rows that differ in anything but the budget are on frontiers of their own."""
    found = []
    for siblings in families(rows):
        names = [name for name in telling(siblings) if name not in BUDGET]
        kinds: dict[tuple[str, ...], list[Row]] = {}
        for row in siblings:
            told, audit = ", ".join(assignments(row.facts, names)), f"audit={row.audit[0]} of {row.audit[1]}"
            kinds.setdefault((told, audit, f"({str(row.first.get('method_hash') or '')[:6]})"), []).append(row)
        for kind, own in sorted(kinds.items()):
            apart = [text for k, text in enumerate(kind[:2]) if text and len({other[k] for other in kinds}) > 1]
            digest = [kind[2]] if len({other for other in kinds if other[:2] == kind[:2]}) > 1 else []
            ordered = sorted(own, key=lambda row: row.audited("regret"))
            label = ", ".join([siblings[0].method, *apart, *digest])
            found.append(Frontier(siblings[0].setting, label, tuple(ordered)))
    return found


def equal_regret(found: Sequence[Frontier]) -> Table:
    """Revenue of each method at the published regrets of its setting, and its regret at zero excess."""
    cells: list[dict[str, tuple[Cell, str]]] = []
    single = 0
    for setting in sorted({frontier.setting for frontier in found}):
        rows = _published(setting)
        own = [frontier for frontier in found if frontier.setting == setting]
        several = [frontier for frontier in own if len(frontier.points) > 1]
        single += len(own) - len(several)
        if not rows and all(frontier.ceiling is None for frontier in own):
            continue
        for frontier in several:
            cells.append(_named(setting, frontier.label))
            for name, row in rows.items():
                cells[-1] |= _estimate(name, frontier.revenue_at(row.regret), 4)
            if frontier.ceiling is not None:
                cells[-1] |= _estimate("zero_excess", frontier.regret_at(frontier.ceiling[0]), 5)
        if rows:
            cells.append(_named(setting, "published, at regret"))
        for name, row in rows.items():
            cells[-1] |= {name: (row.revenue, f"{row.revenue:.4f}, {row.regret:.5f}")}
    text = (
        "Revenue at the audited regret of the published auctions, linear in log regret between two neighbouring "
        "runs of a method, means over seeds; ± is one standard error. Nothing is extrapolated."
    )
    if single:
        text += f" Left out: {single} with one budget only."
    excess = [
        f"No truthful auction at {setting} earns more than {rounded_up(ceiling[0])} (the {ceiling[1]}); what is above, "
        f"the excess, is earned by regret{_excesses(setting, ceiling[0])}."
        for setting, ceiling in sorted({frontier.setting: frontier.ceiling for frontier in found}.items())
        if ceiling is not None
    ]
    best = {frontier.setting: frontier.rows[0].best for frontier in found}
    truthful = [
        f"A truthful auction ({known.name}) at {setting} earns {known.revenue:.4f} ± {known.error:.4f} "
        "(`python baselines.py`)."
        for setting, known in sorted(best.items())
        if known is not None
    ]
    heads = {"standard": "at the regret of Standard", "standard_se": "", "local": "at that of Local", "local_se": ""}
    heads |= {"zero_excess": "regret at zero excess", "zero_excess_se": ""}
    return Table([text, *truthful, *excess], {"setting": "setting", "method": "method", **heads}, cells)


def _estimate(name: str, found: tuple[float, float] | None, digits: int) -> dict[str, tuple[Cell, str]]:
    if found is None:
        return {name: (None, NOT_BRACKETED), f"{name}_se": (None, "")}
    return {name: (found[0], " ± ".join(f"{number:.{digits}f}" for number in found)), f"{name}_se": (found[1], "")}


def _published(setting: str) -> dict[str, PublishedRow]:
    return {name: row for (of, name), row in TABLE_1.items() if of == setting}


def _excesses(setting: str, ceiling: float) -> str:
    found = [
        f"{name.title()} {row.revenue - ceiling:.4f}"
        for name, row in _published(setting).items()
        if row.revenue > ceiling
    ]
    return f"; published: {', '.join(found)}" if found else ""


def _named(setting: str, label: str) -> dict[str, tuple[Cell, str]]:
    return {"setting": (setting, setting), "method": (label, label)}
