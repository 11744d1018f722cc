"""What was chosen for a run, by the names of the command line, and which of it tells rows apart."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from truthful.results import flatten

Facts = dict[str, Any]

EARLY: dict[str, Callable[[dict[str, Any]], Any]] = {
    "iterations": lambda content: content.get("iterations"),
    "regret": lambda content: content.get("regret_mode"),
    "dual": lambda content: content.get("dual"),
    "rmax": lambda content: (content.get("rmax") or {}).get("schedule"),
    "rmax.start": lambda content: (content.get("rmax") or {}).get("start"),
    "rmax.end": lambda content: (content.get("rmax") or {}).get("end"),
    "depth": lambda content: content.get("depth"),
    "batch": lambda content: content.get("batch"),
    "constraint": lambda content: "none",
}
"""What results tell that have no configuration in them: those of early commits."""

ELSEWHERE = re.compile(
    r"(setting|audit|experiment|seed|population|vary|run|checkpoint)(\.|$)"  # told by columns of their own
    r"|(engine|logger|sweep|trainer)$|hydra|recipe[./]|mechanism\.depth$|.*\._\w+_$"  # or by other keys and choices
)
"""Keys that do not tell one row of a method and setting from another, or not as well as others do."""
BUDGET = frozenset({"rmax.start", "rmax.end"})


def facts(content: dict[str, Any]) -> Facts:
    """Every choice of a group and every key of the configuration that may tell two rows of one method apart."""
    if "config" in content:
        known = content["choices"] | flatten(content["config"]) | {"constraint": constraints(content["config"])}
    else:
        known = {name: tell(content) for name, tell in EARLY.items()}
    return {name: entry for name, entry in known.items() if not ELSEWHERE.match(name)}


def constraints(config: dict[str, Any]) -> str:
    """The choice of constraints, which results do not have among their choices where it is a list of several."""
    chosen = sorted(config.get("constraint") or ())
    return f"[{','.join(chosen)}]" if len(chosen) > 1 else "".join(chosen) or "none"


def differing(all_facts: Sequence[Facts]) -> list[str]:
    """The choices and keys in which some of these differ.

    Keys that follow from the choice of a group or recipe do not count: optimizer=soap stands for all of its own.
    What one does not tell is no difference.
    """
    seen: dict[str, dict[Any, set[str]]] = defaultdict(lambda: defaultdict(set))
    for own in all_facts:
        for name, entry in own.items():
            recipe = None if name == "recipe" else own.get("recipe")
            group = own.get(name.partition(".")[0]) if "." in name else None
            seen[name][repr((recipe, group))].add(typed(entry))
    return [name for name, entries in seen.items() if any(len(different) > 1 for different in entries.values())]


def typed(entry: Any) -> str:
    """A value as a person types it."""
    if isinstance(entry, float):
        return re.sub(r"e([-+])0", r"e\1", f"{entry:g}").replace("e+", "e")
    return "null" if entry is None else str(entry)


def assignments(own: Facts, names: Iterable[str]) -> list[str]:
    """Those facts that there are, as on the command line."""
    return [f"{name}={typed(own[name])}" for name in names if name in own]


def position(own: Facts, names: Iterable[str]) -> list[tuple[Any, ...]]:
    """To sort by facts: what is not told first, then numbers, then words."""
    return [
        (1, own[name], "") if isinstance(own.get(name), float | int) else (2 * (name in own), 0, typed(own.get(name)))
        for name in names
    ]
