"""Finding results, and telling them from whatever else lies about."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truthful.results import RESULT
from truthful.sweeps import FAILED, MANIFEST

NEEDED = ("revenue", "revenue_se", "regret", "regret_se", "regret_sum", "regret_p95", "regret_max", "tier", "samples")
"""What a result's audit must say."""


@dataclass(frozen=True)
class Card:
    """One result.json, of a run or of an evaluation."""

    path: Path
    content: dict[str, Any]


def find_cards(paths: Iterable[Path]) -> tuple[list[Card], list[str]]:
    """Read results, and say of each file that is none why it is left out.

    Args:
        paths: files; or folders, of which every result.json at any depth and every JSON file directly inside is read.

    Returns:
        The results, in the order of their paths, and the warnings. A population gives way to its members.
    """
    cards: dict[Path, Card] = {}
    warnings: list[str] = []
    waiting = sorted({file for path in paths for file in _files(path)}, reverse=True)
    while waiting:
        path = waiting.pop()
        try:
            content = json.loads(path.read_text())
        except OSError as error:
            warnings.append(f"{path}: {error.strerror}")
            continue
        except ValueError:
            warnings.append(f"{path}: no JSON, or only half of it")
            continue
        if isinstance(content, dict) and isinstance(content.get("members"), list):
            members = [
                path.parent / member["folder"] / RESULT
                for member in content["members"]
                if {"regret", "folder"} <= member.keys()
            ]
            here = [member for member in members if member.exists()]
            if len(here) < len(members):
                warnings.append(f"{path}: {len(members) - len(here)} of its {len(members)} members are not there")
            waiting += [member for member in here if member not in waiting and member.resolve() not in cards]
        elif (reason := _objection(content)) is not None:
            warnings.append(f"{path}: {reason}")
        else:
            cards[path.resolve()] = Card(path, content)
    return sorted(cards.values(), key=lambda card: card.path), warnings


def _files(path: Path) -> set[Path]:
    if not path.is_dir():
        return {path}
    return {*path.rglob(RESULT), *(file for file in path.glob("*.json") if file.name not in (MANIFEST, FAILED))}


def _objection(content: Any) -> str | None:
    """Why something is no result; None if it is one."""
    if not isinstance(content, dict) or not isinstance(content.get("audit"), dict) or "setting" not in content:
        return "not the result of a run or an evaluation"
    missing = [key for key in NEEDED if content["audit"].get(key) is None]
    return f"its audit has no {missing[0]}" if missing else None
