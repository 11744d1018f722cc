"""Results that differ in nothing but their seed, as one row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from truthful.ceilings import KnownAuction
from truthful.report.cards import Card
from truthful.report.choices import Facts, assignments, differing, facts, position, typed
from truthful.results import method_name
from truthful.sweeps import MANIFEST


@dataclass(frozen=True)
class Row:
    """The results of one recipe under one audit, a seed each."""

    cards: tuple[Card, ...]
    bound: float | None = None
    """Upper bound on the revenue of truthful auctions of the setting."""
    best: KnownAuction | None = None
    """The best truthful auction that is known there."""

    @property
    def first(self) -> dict[str, Any]:
        """The content of one of them, for what all agree in."""
        return self.cards[0].content

    @property
    def setting(self) -> str:
        """By its name on the command line, with the keys that were overridden."""
        changed = self.first.get("setting_overrides") or {}
        keys = " ".join(f"{key}={typed(entry):.24}" for key, entry in changed.items() if key != "sha256")
        overridden = f", {keys or 'overridden'}" if self.first.get("setting_overridden") else ""
        return f"{self.first['setting']}{overridden}"

    @property
    def method(self) -> str:
        """The experiment, or what `method_name` says."""
        return str(self.first.get("experiment") or method_name(self.first))

    @property
    def trained(self) -> bool:
        """Whether there was a training."""
        return bool(self.first.get("train"))

    @property
    def audit(self) -> tuple[str, int]:
        """The tier and the number of profiles behind the regret."""
        return self.first["audit"]["tier"], self.first["audit"]["samples"]

    @cached_property
    def facts(self) -> Facts:
        """What was chosen."""
        return facts(self.first)

    @property
    def recipe(self) -> str:
        """A digest of all that is the same for every seed; of a single run where an early commit wrote the result."""
        return str(self.first.get("recipe_hash") or self.first.get("config_hash") or self.cards[0].path)

    def audited(self, name: str) -> float:
        """Mean over seeds of a number of the audit."""
        return fmean(float(card.content["audit"][name]) for card in self.cards)

    def error(self, name: str) -> float:
        """Standard error of that mean: over seeds where there are several, else the audit's own, over profiles."""
        if len(self.cards) == 1:
            return float(self.first["audit"][f"{name}_se"])
        numbers = [float(card.content["audit"][name]) for card in self.cards]
        return stdev(numbers) / math.sqrt(len(numbers))

    @cached_property
    def largest_regret(self) -> float:
        """Over all instances of all seeds."""
        return max(float(card.content["audit"]["regret_max"]) for card in self.cards)

    def training(self, name: str) -> float | None:
        """Mean over seeds of a number of the training; None where there was none, or not all results have it."""
        numbers: list[Any] = [(card.content.get("train") or {}).get(name) for card in self.cards]
        return None if None in numbers else fmean(numbers)

    def constraint(self, name: str) -> tuple[float, bool] | None:
        """Mean over seeds of a constraint's violation, and whether all keep it; None where not all results have it."""
        found = [(card.content.get("constraints") or {}).get(name) for card in self.cards]
        known = [one for one in found if one is not None]
        if len(known) < len(found):
            return None
        return fmean(one["violation"] for one in known), all(one["met"] for one in known)

    @cached_property
    def sweep(self) -> Path | None:
        """The folder of the sweep that all of its runs are of, or None."""
        folders = {next((one for one in card.path.parents if (one / MANIFEST).exists()), None) for card in self.cards}
        return folders.pop() if len(folders) == 1 else None

    @property
    def execution(self) -> tuple[Any, ...]:
        """What must agree for two times to be compared."""
        train = self.first.get("train") or {}
        known = (train.get(key) for key in ("engine", "threads", "population"))
        return self.first.get("mechanism"), *known, train.get("devices", 1), self.sweep

    @property
    def ceiling(self) -> tuple[float, str] | None:
        """What truthful auctions earn at most, and whether that is the exact optimum or an upper bound."""
        optimum = self.first.get("optimal_revenue")
        if optimum is not None:
            return float(optimum), "optimum"
        return None if self.bound is None else (self.bound, "bound")


def make_rows(
    cards: Sequence[Card], bounds: Mapping[str, float], best: Mapping[str, KnownAuction]
) -> tuple[list[Row], list[str]]:
    """Put results together that differ in their seed only.

    Args:
        cards: the results.
        bounds: upper bounds by setting (`ceilings.named_bounds`); a result with an overridden setting has its own.
        best: the best truthful auctions by setting (`ceilings.best_truthful`).

    Returns:
        The rows, `arranged`, and a warning for each result that is there twice. Results of early commits do not say
        what else was chosen (`recipe_hash`) and have a row each.
    """
    groups: dict[Any, dict[int, Card]] = {}
    warnings = []
    for card in cards:
        content, audit = card.content, card.content["audit"]
        row = Row((card,))
        key = (row.setting, row.method, row.recipe, audit.get("revenue_samples"), *row.audit)
        seeds = groups.setdefault(key, {})
        if (other := seeds.setdefault(content.get("seed") or 0, card)) is not card:
            warnings.append(f"{card.path}: the same run, audited likewise, as {other.path}: left out")
    rows = [_row(tuple(seeds[seed] for seed in sorted(seeds)), bounds, best) for seeds in groups.values()]
    return arranged(rows), warnings


def arranged(rows: Sequence[Row]) -> list[Row]:
    """By setting, method, iterations, audit, what was chosen, and regret."""
    names = telling(rows)

    def place(row: Row) -> tuple[Any, ...]:
        chosen = position(row.facts, names)
        length = row.first.get("iterations") or 0
        return row.setting, row.method, length, *row.audit, chosen, row.audited("regret")

    return sorted(rows, key=place)


def telling(rows: Sequence[Row]) -> list[str]:
    """The facts in which rows of one setting and method differ."""
    names = [differing([row.facts for row in siblings]) for siblings in families(rows)]
    return list(dict.fromkeys(name for some in names for name in some))


def families(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each setting and method."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.setting, row.method), []).append(row)
    return list(found.values())


def names(rows: Sequence[Row]) -> list[str]:
    """The method of each row; with the first digits of `recipe` where no fact tells it from another row."""
    told = telling(rows)
    keys = [(row.setting, row.method, *assignments(row.facts, told)) for row in rows]
    recipes: dict[tuple[str, ...], set[str]] = {}
    for row, key in zip(rows, keys, strict=True):
        recipes.setdefault(key, set()).add(row.recipe)
    return [
        row.method if len(recipes[key]) == 1 else f"{row.method} ({row.recipe[:6]})"
        for row, key in zip(rows, keys, strict=True)
    ]


def labels(rows: Sequence[Row]) -> list[str]:
    """The name of each row with what tells it from others of its setting and method, in one line."""
    told = {id(row): telling(siblings) for siblings in families(rows) for row in siblings}
    return [
        " ".join([name, *assignments(row.facts, told[id(row)])]) for row, name in zip(rows, names(rows), strict=True)
    ]


def _row(cards: tuple[Card, ...], bounds: Mapping[str, float], best: Mapping[str, KnownAuction]) -> Row:
    first = cards[0].content
    if first.get("setting_overridden"):
        return Row(cards, (first.get("bound") or {}).get("limit"))
    return Row(cards, bounds.get(first["setting"]), best.get(first["setting"]))
