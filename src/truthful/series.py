"""metrics.jsonl: what a run measured while it trained, whatever its loggers are; one JSON object a line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truthful.results import write_text

METRICS = "metrics.jsonl"


class MetricsFile:
    """Appends to the metrics of a run. A run that goes on from a checkpoint has every iteration once.

    Nothing is written before the first entry.

    Args:
        folder: the run folder.
        runs: what tells the run from others, as its result will say it; of a population, that of each member.
        done: iterations behind the checkpoint that training goes on from; entries after it are of a session that was
            killed, and are dropped.
    """

    def __init__(self, folder: Path, runs: Sequence[Mapping[str, Any]], done: int) -> None:
        self.path, self.runs, self.done = folder / METRICS, runs, done
        self._begun = False

    def write(self, metrics: Mapping[str, float], iteration: int) -> None:
        """Add an entry. What is not a finite number becomes null."""
        if not self._begun:
            earlier = _entries(self.path) if self.path.exists() else iter(())
            kept = [entry for entry in earlier if entry.get("iteration", math.inf) <= self.done]
            write_text(self.path, "".join(map(_line, [{"runs": self.runs}, *kept])))
            self._begun = True
        entry = {name: number if math.isfinite(number) else None for name, number in metrics.items()}
        with self.path.open("a") as file:
            file.write(_line({"iteration": iteration} | entry))


@dataclass(frozen=True)
class Series:
    """The metrics of one run, or of one member of a population."""

    path: Path
    run: dict[str, Any]
    """What tells it from others, as in its result."""
    entries: list[dict[str, Any]]
    """`iteration` and whatever was measured there."""


def read_metrics(path: Path) -> list[Series]:
    """The run of a metrics.jsonl, or the members of its population, each with what was measured of it alone.

    A half-written line is left out; a file of something else has no runs.
    """
    first, *entries = list(_entries(path)) or [{}]
    runs = first.get("runs") or []
    if len(runs) == 1:
        return [Series(path, runs[0], entries)]
    return [Series(path, run, [_own(entry, f"member_{run['seed']}/") for entry in entries]) for run in runs]


def _own(entry: dict[str, Any], prefix: str) -> dict[str, Any]:
    own = {name.removeprefix(prefix): number for name, number in entry.items() if name.startswith(prefix)}
    return {"iteration": entry["iteration"]} | own


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the last one, of a process that was killed or is about to go on
            continue
        if isinstance(entry, dict):
            yield entry


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry) + "\n"
