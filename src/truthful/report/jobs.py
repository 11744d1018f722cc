"""How far sweeps are: what their manifests promise, and what is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from truthful.results import RESULT, read_json
from truthful.sweeps import MANIFEST, Job, State, read_manifest

NAMED = 10
"""So many jobs of a kind are named, the others counted."""


@dataclass(frozen=True)
class Sweep:
    """The jobs of a sweep, by how far they have come."""

    folder: Path
    jobs: dict[State, list[Job]]

    def summary(self) -> list[str]:
        """In words: how many jobs are in which state, and the names of those that are not finished."""
        counts = [f"{len(jobs)} {state.value}" for state, jobs in self.jobs.items() if jobs or state is State.FINISHED]
        lines = [f"{sum(map(len, self.jobs.values()))} jobs in {self.folder}: {', '.join(counts)}"]
        for state, jobs in self.jobs.items():
            if jobs and state is not State.FINISHED:
                failed = state is State.FAILED
                named = [f"{job.folder.name}: {job.error}" if failed else job.folder.name for job in jobs[:NAMED]]
                more = [f"and {len(jobs) - NAMED} more"] if len(jobs) > NAMED else []
                between = "\n    " if failed else ", "
                lines.append(f"  {state.value}: {between.join([*named, *more])}")
        return lines

    def warnings(self) -> list[str]:
        """Results that are there, but of another configuration than the manifest's."""
        unfinished = (job for state, jobs in self.jobs.items() if state is not State.FINISHED for job in jobs)
        return [
            f"{job.folder / RESULT}: of another configuration than {MANIFEST} has for this job"
            for job in unfinished
            if _is_whole(job.folder / RESULT)
        ]


def find_sweeps(paths: Iterable[Path]) -> list[Sweep]:
    """The sweeps in some folders, at any depth, by their manifests; a file of that name that is none is left out."""
    folders = {path.parent for folder in paths if folder.is_dir() for path in folder.rglob(MANIFEST)}
    sweeps = []
    for folder in sorted(folders):
        try:
            jobs = [(job.state, job) for job in read_manifest(folder)]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        sweeps.append(Sweep(folder, {state: [job for own, job in jobs if own is state] for state in State}))
    return sweeps


def _is_whole(path: Path) -> bool:
    try:
        return bool(read_json(path))
    except (OSError, ValueError):
        return False
