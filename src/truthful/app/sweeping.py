"""A sweep that the same command goes on with."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from truthful.app.building import pin_data, plain
from truthful.app.composing import Composer
from truthful.app.jobs import LAUNCHER
from truthful.app.mistakes import INTERRUPTED, stop
from truthful.app.runs import run_name, shown
from truthful.errors import UserError
from truthful.results import COMMAND, RESULT, command_line, config_hash, read_json
from truthful.sweeps import Job, State, write_manifest

SECONDS_BETWEEN_LOOKS = 2.0


class Sweep:
    """The jobs of a grid, in folders of one folder, and what is left of them.

    A job whose result is there is done; one that was interrupted goes on from its checkpoint; one that failed is left
    alone unless it is asked for. A job that fails does not stop the others.

    Args:
        folder: of the sweep.
        points: the overrides of each job.
        compose: makes configurations of them; whatever cannot be composed is an error now.

    Raises:
        UserError: two points are the same job, or an override is not for sweeps.
    """

    def __init__(self, folder: Path, points: Sequence[Sequence[str]], compose: Composer) -> None:
        self.folder = folder.absolute()
        self.jobs: list[Job] = []
        taken: dict[Path, Sequence[str]] = {}
        if any(override.startswith("hydra.sweep.subdir=") for override in compose.config.hydra.overrides.hydra):
            raise UserError(
                "folders of jobs are named after their overrides, so that they are found again; "
                "hydra.sweep.dir chooses where they are, hydra.sweep.subdir cannot be chosen"
            )
        for point in points:
            config, choices = compose(point)
            if type(config.retry) is not bool:
                raise UserError(f"retry must be true or false, got {config.retry!r}")
            if config.resume not in (None, "auto"):
                raise UserError("resume= names one run; a sweep goes on with all of its own by itself")
            pin_data(config.setting, *config.constraint.values())
            job = Job(self.folder / run_name(choices, point), tuple(point), config_hash(plain(config)))
            if (other := taken.setdefault(job.folder, point)) is not point:
                pair = " and ".join(
                    " ".join(sorted(set(a) - set(b))) or " ".join(a) for a, b in ((other, point), (point, other))
                )
                raise UserError(f"two jobs of the sweep would give the same numbers: {pair}")
            self.jobs.append(job)

    def begin(self, retry: bool) -> list[list[str]]:
        """List the jobs in the manifest, and say what is left: the overrides of each job to launch.

        Args:
            retry: whether jobs that failed are launched again.
        """
        self.before = Counter(job.state for job in self.jobs)
        self.command = command_line()
        write_manifest(self.folder, self.command, self.jobs)
        done = {State.FINISHED} if retry else {State.FINISHED, State.FAILED}
        self.left = [job for job in self.jobs if job.state not in done]
        counts = ", ".join(f"{self.before[state]} {state.value}" for state in State if self.before[state])
        self._say(f"{len(self.jobs)} jobs in {shown(self.folder)}: {counts}; {len(self.left)} to do")
        return [[*job.overrides, "resume=auto"] for job in self.left]

    @contextmanager
    def launched(self, in_turn: bool) -> Iterator[None]:
        """While jobs run, tell which are done, unless they run in turn and do so themselves; then take stock.

        Raises:
            UserError: at the end, where jobs failed or were not finished.
        """
        stopped, reason = threading.Event(), ""
        watching = threading.Thread(target=self._watch, args=(stopped,), daemon=True)
        if not in_turn:
            watching.start()
        told = {COMMAND: self.command, LAUNCHER: str(os.getpid())}
        os.environ |= told
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            stop("interrupted; the same command goes on with what is left", INTERRUPTED)
        except Exception as error:  # a launcher lost a job
            reason = f"; the launcher stopped: {error}"
        finally:
            for name in told:
                del os.environ[name]
            stopped.set()
            if not in_turn:
                watching.join()
        self._take_stock(reason)

    def _take_stock(self, reason: str) -> None:
        states = {job: job.state for job in self.jobs}
        failed = [job for job, state in states.items() if state is State.FAILED]
        lost = [job for job, state in states.items() if state not in (State.FINISHED, State.FAILED)]
        for job in failed:
            again = "" if job in self.left else " (not run again: that takes retry=true)"
            self._say(f"{shown(job.folder)} failed: {job.error}{again}")
        for job in lost:
            self._say(f"{shown(job.folder)} was not finished; the same command goes on with it")
        if failed or lost:
            parts = [f"{len(jobs)} {what}" for jobs, what in ((failed, "failed"), (lost, "not finished")) if jobs]
            raise UserError(f"of {len(self.jobs)} jobs in {shown(self.folder)}: {', '.join(parts)}{reason}")
        self._say(f"all {len(self.jobs)} jobs are finished; as a table: python report.py {shown(self.folder)}")

    def _watch(self, stopped: threading.Event) -> None:
        """Tell each job that ends, until all have or the launcher has."""
        waiting, last = list(self.left), False
        while waiting and not last:
            last = stopped.wait(SECONDS_BETWEEN_LOOKS)
            for job in list(waiting):
                if (state := job.state) in (State.FINISHED, State.FAILED):
                    waiting.remove(job)
                    count = f"{len(self.left) - len(waiting)} of {len(self.left)}"
                    self._say(f"{count}: {shown(job.folder)} {state.value}{_numbers(job, state)}")

    @staticmethod
    def _say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _numbers(job: Job, state: State) -> str:
    """What a job that ended has to tell, in a few words."""
    if state is State.FAILED:
        return f": {job.error}"
    audit = read_json(job.folder / RESULT).get("audit")  # a population has none
    return "" if audit is None else f", revenue {audit['revenue']:.4f}, regret {audit['regret']:.5f} ({audit['tier']})"
