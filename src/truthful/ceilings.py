"""What truthful auctions earn at most: cards that `bounds.py` has written, found by the setting they are of.

Reading them needs no torch: reports and training look bounds up, only `bounds.py` computes them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from truthful.results import config_hash, read_json


def setting_key(setting: dict[str, Any]) -> str:
    """A hash of a resolved setting: two configurations with the same key are the same setting."""
    return config_hash({"setting": {key: entry for key, entry in setting.items() if key != "_convert_"}})


def read_bounds(folder: Path) -> list[dict[str, Any]]:
    """The cards in a folder; what is no card is left out."""
    cards = []
    for path in sorted(folder.glob("*.json")):
        try:
            card = read_json(path)
        except (OSError, json.JSONDecodeError):
            continue
        if isinstance(card, dict) and isinstance(card.get("bound"), dict):
            cards.append(card)
    return cards


def find_bound(folder: Path, setting: dict[str, Any]) -> dict[str, Any] | None:
    """The upper bound on the revenue of truthful auctions of a resolved setting, or None if there is no card of it.

    Returns:
        `limit` (the bound), `estimate`, `standard_error`, `samples`, `method`.
    """
    key = setting_key(setting)
    found = (card["bound"] for card in read_bounds(folder) if card.get("key") == key)
    return min(found, key=lambda bound: float(bound["limit"]), default=None)


def rounded_up(limit: float) -> str:
    """A bound in four decimals, never below it."""
    return f"{math.ceil(limit * 1e4 * (1 - 1e-12)) / 1e4:.4f}"


def named_bounds(folder: Path) -> dict[str, float]:
    """The limits of settings by name, of those with no key overridden."""
    return {
        card["setting"]: float(card["bound"]["limit"])
        for card in read_bounds(folder)
        if not card.get("setting_overridden")
    }
