"""What the best truthful auction earns, at most and at least: cards of `bounds.py` and `baselines.py`, by setting.

Reading them needs no torch: reports and training look numbers up, only those two scripts compute them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truthful.results import config_hash, read_json

ERRORS = 3.09
"""A revenue is above its mean less so many standard errors with 99.9 % confidence: 99 % for the best of ten."""


def setting_key(setting: dict[str, Any]) -> str:
    """A hash of a resolved setting: two configurations with the same key are the same setting."""
    return config_hash({"setting": {key: entry for key, entry in setting.items() if key != "_convert_"}})


def read_cards(folder: Path, part: str) -> list[dict[str, Any]]:
    """The cards in a folder that have an entry `part`; what is no card is left out."""
    cards = []
    for path in sorted(folder.glob("*.json")):
        try:
            card = read_json(path)
        except (OSError, json.JSONDecodeError):
            continue
        if isinstance(card, dict) and card.get(part):
            cards.append(card)
    return cards


def find_bound(folder: Path, setting: dict[str, Any]) -> dict[str, Any] | None:
    """The upper bound on the revenue of truthful auctions of a resolved setting, or None if there is no card of it.

    Returns:
        `limit` (the bound), `estimate`, `standard_error`, `samples`, `method`.
    """
    key = setting_key(setting)
    found = (card["bound"] for card in read_cards(folder, "bound") if card.get("key") == key)
    return min(found, key=lambda bound: float(bound["limit"]), default=None)


def rounded_up(limit: float) -> str:
    """A bound in four decimals, never below it."""
    return f"{math.ceil(limit * 1e4 * (1 - 1e-12)) / 1e4:.4f}"


def named_bounds(folder: Path) -> dict[str, float]:
    """The limits of settings by name, of those with no key overridden."""
    return {
        card["setting"]: float(card["bound"]["limit"])
        for card in read_cards(folder, "bound")
        if not card.get("setting_overridden")
    }


@dataclass(frozen=True)
class KnownAuction:
    """A truthful auction and what it earns."""

    name: str
    """In conf/mechanism."""
    revenue: float
    error: float
    """Standard error of the revenue; 0 if it is exact."""

    @property
    def least(self) -> float:
        """What it earns at least, with 99 % confidence even for the best of ten auctions."""
        return self.revenue - ERRORS * self.error


def best_truthful(folder: Path) -> dict[str, KnownAuction]:
    """The truthful auction with the highest revenue in each card of `baselines.py`, by the setting's name.

    Of settings with no key overridden; truthful by a theorem.
    """
    best: dict[str, KnownAuction] = {}
    for card in read_cards(folder, "auctions"):
        known = [
            KnownAuction(auction["name"], float(auction["controlled"]), float(auction["controlled_se"]))
            for auction in card["auctions"]
            if auction["strategyproof"]
        ]
        if known and not card.get("setting_overridden"):
            best[card["setting"]] = max(known, key=lambda auction: auction.least)
    return best
