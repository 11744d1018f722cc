"""A sweep's folder: what its jobs are, and how far each has come. Files only, so that anything can look at any time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from truthful.results import CHECKPOINT, RESULT, read_json, write_json

MANIFEST = "manifest.json"
"""In a sweep's folder: its jobs."""
FAILED = "failed.json"
"""In the folder of a job that failed: why."""
FORMAT = 1


class State(Enum):
    """How far a job has come."""

    FINISHED = "finished"
    FAILED = "failed"
    BEGUN = "begun"
    NOT_BEGUN = "not begun"


@dataclass(frozen=True)
class Job:
    """One point of a grid, and the folder that it runs in."""

    folder: Path
    overrides: tuple[str, ...]
    config_hash: str

    @property
    def state(self) -> State:
        """What its folder says. Results and failures of another configuration do not count."""
        if self._says(RESULT):
            return State.FINISHED
        if self._says(FAILED):
            return State.FAILED
        return State.BEGUN if (self.folder / CHECKPOINT).exists() else State.NOT_BEGUN

    @property
    def error(self) -> str:
        """Why it failed."""
        return str(read_json(self.folder / FAILED)["error"])

    def _says(self, name: str) -> bool:
        try:
            return read_json(self.folder / name).get("config_hash") == self.config_hash
        except (OSError, ValueError):  # there is none, or half of one
            return False


def record_failure(folder: Path, config_hash: str, error: str) -> None:
    """Remember that a job failed, and why."""
    write_json(folder / FAILED, {"config_hash": config_hash, "error": error, "seconds_since_epoch": time.time()})


def write_manifest(folder: Path, command: str, jobs: list[Job]) -> None:
    """Add jobs to a sweep's manifest: the same sweep may grow, by further seeds for instance.

    Args:
        folder: of the sweep.
        command: what was typed.
        jobs: with folders inside `folder`.
    """
    listed = {
        job.folder.name: {"overrides": list(job.overrides), "config_hash": job.config_hash}
        for job in [*read_manifest(folder), *jobs]
    }
    write_json(folder / MANIFEST, {"format": FORMAT, "command": command, "jobs": listed})


def read_manifest(folder: Path) -> list[Job]:
    """The jobs of a sweep; none where there is no manifest."""
    if not (folder / MANIFEST).exists():
        return []
    content: Mapping[str, Any] = read_json(folder / MANIFEST)
    return [
        Job(folder / name, tuple(job["overrides"]), str(job["config_hash"])) for name, job in content["jobs"].items()
    ]
