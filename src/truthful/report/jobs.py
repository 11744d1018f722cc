"""How far sweeps are: what their manifests promise, and what is there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truthful.results import CHECKPOINT, RESULT

MANIFEST = "manifest.json"
FAILED = "failed.json"
NAMED = 10
"""So many jobs of a kind are named, the others counted."""


@dataclass(frozen=True)
class Sweep:
    """The jobs of a sweep by their folders' names, and warnings."""

    folder: Path
    finished: list[str]
    failed: dict[str, str]
    """With their errors."""
    begun: list[str]
    missing: list[str]
    warnings: list[str]

    def summary(self) -> list[str]:
        """In words: how many jobs are in which state, and the names of those that are not finished."""
        jobs = {"failed": self.failed, "begun": self.begun, "not begun": self.missing}
        count = len(self.finished) + sum(map(len, jobs.values()))
        counts = ", ".join(f"{len(names)} {state}" for state, names in jobs.items() if names)
        lines = [f"{count} jobs in {self.folder}: {len(self.finished)} finished{counts and f', {counts}'}"]
        for state, names in jobs.items():
            if names:
                some = [f"{name}: {self.failed[name]}" if state == "failed" else name for name in names]
                more = [f"and {len(some) - NAMED} more"] if len(some) > NAMED else []
                between = "\n    " if state == "failed" else ", "
                lines.append(f"  {state}: {between.join([*some[:NAMED], *more])}")
        return lines


def find_sweeps(paths: Iterable[Path]) -> list[Sweep]:
    """The sweeps in some folders, at any depth, by their manifests; one that is half written is no manifest yet."""
    manifests = {path for folder in paths if folder.is_dir() for path in folder.rglob(MANIFEST)}
    return [_sweep(path.parent, content["jobs"]) for path in sorted(manifests) if (content := _read(path)).get("jobs")]


def _sweep(folder: Path, jobs: dict[str, dict[str, Any]]) -> Sweep:
    sweep = Sweep(folder, [], {}, [], [], [])
    for name, job in jobs.items():
        result, failed = _read(folder / name / RESULT), _read(folder / name / FAILED)
        if result.get("config_hash") == job["config_hash"]:
            sweep.finished.append(name)
            continue
        if "config_hash" in result:
            sweep.warnings.append(
                f"{folder / name / RESULT}: of another configuration than {MANIFEST} has for this job"
            )
        if failed.get("config_hash") == job["config_hash"]:
            sweep.failed[name] = " ".join(str(failed.get("error")).split())
        else:
            (sweep.begun if (folder / name / CHECKPOINT).exists() else sweep.missing).append(name)
    return sweep


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
