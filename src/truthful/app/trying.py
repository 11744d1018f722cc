"""The trials of a study, each a run of train.py in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

from truthful.app.composing import Composer
from truthful.app.jobs import LAUNCHER, OUTPUT
from truthful.app.mistakes import INTERRUPTED
from truthful.app.runs import LOCK, run_name
from truthful.app.studies import Declaration
from truthful.errors import UserError
from truthful.results import RESULT, read_json
from truthful.study import Audited, Claim, Stage, Trials, audits

SECONDS_BETWEEN_LOOKS = 1.0
STOPPED = (INTERRUPTED, -signal.SIGINT, -signal.SIGTERM)
"""How a run ends that somebody has stopped; its trial goes on another time."""


class Workers:
    """Work on the trials of a study, several at once.

    Args:
        declaration: of the study.
        trials: of the study.
        compose: makes configurations of trials.
        script: train.py.
    """

    def __init__(self, declaration: Declaration, trials: Trials, compose: Composer, script: Path) -> None:
        self.declaration, self.trials, self.compose, self.script = declaration, trials, compose, script
        self.stopping = Event()

    def run(self) -> None:
        """Until there are enough trials. When interrupted, runs save where they are.

        Raises:
            UserError: trials only ever fail, or one was stopped from outside.
        """
        count = self.declaration.workers
        with ThreadPoolExecutor(count) as pool:
            try:
                working = [pool.submit(self._work) for _ in range(count)]
                wait(working, return_when=FIRST_EXCEPTION)
            finally:
                self.stopping.set()
        for worker in working:
            worker.result()

    def _work(self) -> None:
        while not self.stopping.is_set() and (claim := self.trials.claim(self.declaration.trials, self._name)):
            self._try(claim)

    def _name(self, overrides: tuple[str, ...]) -> str:
        _, choices = self.compose([*self.declaration.fixed.values(), *overrides])
        return run_name(choices, overrides)

    def _try(self, claim: Claim) -> None:
        begun = "goes on" if claim.resumed else f"of {self.declaration.trials}"
        self._say(f"trial {claim.number} {begun}: {' '.join(claim.overrides)}")
        self._wait_for_folder(claim.folder)
        arguments, iterations = self._arguments(claim)
        environment = os.environ | {LAUNCHER: str(os.getpid())}
        environment.pop("HYDRA_FULL_ERROR", None)  # run_script has set it for this process
        with (claim.folder / OUTPUT).open("a") as output:
            process = subprocess.Popen(
                [sys.executable, str(self.script), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        reason, seen = None, 0
        while process.poll() is None and reason is None and not self.stopping.wait(SECONDS_BETWEEN_LOOKS):
            own = audits(claim.folder)
            if len(own) > seen:
                reason, seen = self._objection(claim.number, own, iterations), len(own)
        if process.poll() is None:
            process.terminate()  # it saves where it is
            process.wait()
        if (claim.folder / RESULT).exists():
            audit: dict[str, Any] = read_json(claim.folder / RESULT)["audit"]
            self.trials.complete(claim, audit["revenue"], audit["regret"])
            numbers = f"revenue {audit['revenue']:.4f}, regret {audit['regret']:.5f} ({audit['tier']})"
            self._say(f"trial {claim.number}: {numbers}")
        elif reason is not None:
            self.trials.prune(claim, reason)
            self._say(f"trial {claim.number} stopped early: {reason}")
        elif process.returncode in STOPPED:
            if not self.stopping.is_set():
                raise UserError(f"the run of trial {claim.number} was stopped; the same command goes on with it")
        else:
            sentence = _last_line(claim.folder / OUTPUT) or f"ended with code {process.returncode}"
            self.trials.fail(claim, sentence)
            self._say(f"trial {claim.number} failed: {sentence}")

    def _arguments(self, claim: Claim) -> tuple[list[str], int]:
        """What train.py gets, and for how many iterations it trains."""
        overrides = [*self.declaration.fixed.values(), *claim.overrides]
        config, _ = self.compose(overrides)
        pruning, iterations = self.declaration.pruning, int(config.iterations)
        if pruning is not None:
            overrides.append(f"trainer.audit_every={max(1, iterations // (pruning.audits + 1))}")
        return [*overrides, "resume=auto", f"hydra.run.dir={claim.folder}"], iterations

    def _objection(self, number: int, own: Mapping[int, Audited], iterations: int) -> str | None:
        """Why a trial is not worth going on with."""
        if self.declaration.pruning is None:
            return None
        others = [outcome for outcome in self.trials.outcomes() if outcome.number != number]
        compared = [audits(other.folder) for other in others if other.stage is not Stage.FAIL]
        return self.declaration.pruning.stops(own, compared, iterations)

    def _wait_for_folder(self, folder: Path) -> None:
        """The run of a worker that was killed may live on for a moment."""
        from filelock import FileLock, Timeout

        folder.mkdir(exist_ok=True)
        while not self.stopping.is_set():
            with suppress(Timeout), FileLock(folder / LOCK).acquire(timeout=SECONDS_BETWEEN_LOOKS):
                return

    @staticmethod
    def _say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _last_line(path: Path) -> str:
    """Of a run that failed: its error."""
    lines = path.read_text().splitlines()
    return next((line.removeprefix("train.py: ") for line in reversed(lines) if line.strip()), "")
