"""The trials of a study: who works on which, what has come of each. In one sqlite file that any process can open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from truthful.errors import UserError
from truthful.study.space import Axis

DATABASE = "study.db"
"""In a study's folder: what optuna knows."""
LOCKS = ".locks"
"""In a study's folder: `study`, held while trials are given out, and one a trial, held by who works on it."""
SECONDS_TO_WAIT = 60
"""For another process that writes to the database."""
FOLDER, OVERRIDES, REASON = "folder", "overrides", "reason"
"""What a trial is remembered with: the name of its folder, what it is typed as, why it ended early."""
TWIN = "tried already, as trial"
"""Why a trial fails that another one has the overrides of."""
FIRST = 3
"""If so many trials fail and none has come to anything, no more are begun."""


class Stage(Enum):
    """How far a trial has come, by optuna's names and in words."""

    COMPLETE = "complete"
    PRUNED = "stopped early"
    FAIL = "failed"
    RUNNING = "not finished"


@dataclass(frozen=True)
class Claim:
    """A trial that this process works on, as long as it holds the lock."""

    number: int
    overrides: tuple[str, ...]
    folder: Path
    resumed: bool
    """Whether another process had begun it."""
    lock: Any


@dataclass(frozen=True)
class Outcome:
    """How far a trial has come."""

    number: int
    overrides: tuple[str, ...]
    folder: Path
    stage: Stage
    reason: str
    """Why it was stopped or failed."""


class Trials:
    """The trials of a study. Several processes and threads may have the same study open.

    Exactly as many trials are given out as are wanted, each to one process. A trial whose process has died, however, is
    given out again: its run goes on from its checkpoint.

    Args:
        folder: of the study.
        axes: what is varied.
        declared: what must be the same whenever the study goes on, by names for a person.
        first: a point to begin with, as values of the axes' distributions; None: there is none.

    Raises:
        UserError: the folder has another study.
    """

    def __init__(
        self, folder: Path, axes: Mapping[str, Axis], declared: Mapping[str, str], first: Mapping[str, Any] | None
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder, self.axes = folder, axes
        (folder / LOCKS).mkdir(parents=True, exist_ok=True)
        with self._alone():
            self.storage = optuna.storages.RDBStorage(
                f"sqlite:///{folder / DATABASE}", engine_kwargs={"connect_args": {"timeout": SECONDS_TO_WAIT}}
            )
            self.study = optuna.create_study(
                study_name=folder.name, storage=self.storage, directions=("maximize", "minimize"), load_if_exists=True
            )
            there = self.study.user_attrs.get("declared")
            if there is None:
                if first is not None:
                    self.study.enqueue_trial(dict(first))
                self.study.set_user_attr("declared", dict(declared))
            else:
                _compare(there, declared, folder)

    def claim(self, wanted: int, name: Callable[[tuple[str, ...]], str]) -> Claim | None:
        """A trial to work on: one that another process left behind, else a new one; None if there are enough.

        Args:
            wanted: trials of the study, those among them that were pruned or have failed.
            name: of the folder of a trial with these overrides.

        Raises:
            UserError: trials only ever fail.
        """
        import optuna

        with self._alone():
            if claim := self._left_behind():
                return claim
            while len(known := self.outcomes()) < wanted:
                self._check_hope(known, self.folder)
                trial = self.study.ask({key: axis.distribution() for key, axis in self.axes.items()})
                overrides = tuple(f"{key}={axis.typed(trial.params[key])}" for key, axis in self.axes.items())
                folder = self.folder / name(overrides)
                lock = self._lock(trial.number)
                lock.acquire()
                trial.set_user_attr(OVERRIDES, overrides)
                trial.set_user_attr(FOLDER, folder.name)
                twin = next((other.number for other in known if other.folder == folder), None)
                if twin is None:
                    return Claim(trial.number, overrides, folder, resumed=False, lock=lock)
                trial.set_user_attr(REASON, f"{TWIN} {twin}")
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
                lock.release()
            return None

    def complete(self, claim: Claim, revenue: float, regret: float) -> None:
        """Its run is finished and audited."""
        self._end(claim, Stage.COMPLETE, (revenue, regret))

    def prune(self, claim: Claim, reason: str) -> None:
        """It was stopped because it is not worth going on with."""
        self._end(claim, Stage.PRUNED, reason=reason)

    def fail(self, claim: Claim, reason: str) -> None:
        """Its run came to nothing."""
        self._end(claim, Stage.FAIL, reason=reason)

    def outcomes(self) -> list[Outcome]:
        """All trials that were given out."""
        return [
            Outcome(
                trial.number,
                tuple(trial.user_attrs[OVERRIDES]),
                self.folder / trial.user_attrs[FOLDER],
                Stage[trial.state.name],
                trial.user_attrs.get(REASON, ""),
            )
            for trial in self.study.get_trials(deepcopy=False)
            if FOLDER in trial.user_attrs
        ]

    def best(self) -> set[int]:
        """The numbers of the trials that no other beats in both objectives."""
        return {trial.number for trial in self.study.best_trials}

    def _left_behind(self) -> Claim | None:
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            lock = self._lock(trial.number)
            if not _acquired(lock):
                continue
            if FOLDER in trial.user_attrs:
                folder = self.folder / trial.user_attrs[FOLDER]
                return Claim(trial.number, tuple(trial.user_attrs[OVERRIDES]), folder, resumed=True, lock=lock)
            self.study.tell(trial.number, state=TrialState.FAIL)  # its process died while it was given out
            lock.release()
        return None

    @staticmethod
    def _check_hope(known: Sequence[Outcome], folder: Path) -> None:
        failed = [outcome for outcome in known if outcome.stage is Stage.FAIL]
        if len(failed) >= FIRST and len(failed) == len(known):
            raise UserError(
                f"all of the first {len(failed)} trials failed, so no more are begun; the last: {failed[-1].reason}. "
                f"To begin anew, delete {folder}"
            )

    def _end(self, claim: Claim, stage: Stage, values: tuple[float, float] | None = None, reason: str = "") -> None:
        from optuna.trial import TrialState

        with self._alone():  # so that nobody takes it for one that was left behind
            study = self.storage.get_study_id_from_name(self.study.study_name)
            identifier = self.storage.get_trial_id_from_study_id_trial_number(study, claim.number)
            self.storage.set_trial_user_attr(identifier, REASON, reason)
            self.study.tell(claim.number, values, TrialState[stage.name])
            claim.lock.release()

    def _lock(self, name: object) -> Any:
        from filelock import FileLock

        return FileLock(self.folder / LOCKS / str(name), thread_local=False)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock("study"):
            yield


def _acquired(lock: Any) -> bool:
    from filelock import Timeout

    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def _compare(there: Mapping[str, str], wanted: Mapping[str, str], folder: Path) -> None:
    for name in sorted(there.keys() | wanted.keys()):
        if there.get(name) != wanted.get(name):
            raise UserError(
                f"the study in {folder} is another one: {name} is {there.get(name, 'not given')} there and "
                f"{wanted.get(name, 'not given')} here; delete that folder, or copy the study's file to another name"
            )
