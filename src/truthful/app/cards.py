"""What cards about a setting begin with, and where they are: those of `bounds.py` and `baselines.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truthful.app.building import differs_from_file
from truthful.app.runs import current_choices
from truthful.ceilings import setting_key


def card_head(config: dict[str, Any], conf: Path) -> dict[str, Any]:
    """Which setting a card is of: its name, whether keys were overridden, and the hash by which it is found."""
    name = current_choices()["setting"]
    return {
        "setting": name,
        "setting_overridden": differs_from_file(conf, "setting", name, config["setting"]),
        "key": setting_key(config["setting"]),
    }


def card_path(folder: Path, head: dict[str, Any]) -> Path:
    """The file of a card: the setting's name, with a digest where keys were overridden."""
    digest = f"-{head['key'][:8]}" if head["setting_overridden"] else ""
    return folder / f"{head['setting']}{digest}.json"
