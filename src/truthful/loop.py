"""The training loop as Lightning sees it: one training step is many iterations."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import lightning as L
import torch

from truthful.distributed import ALONE, Share
from truthful.engine import Eager, Engine, EngineFailed


class TrainingDiverged(RuntimeError):
    """A NaN or an infinity appeared in training. The last checkpoint is from before it."""


class Clock:
    """Wall time of training, over all its sessions. It can be paused, for audits."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        """Seconds up to the last pause."""
        self._running_since: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        running = 0.0 if self._running_since is None else time.perf_counter() - self._running_since
        return self.elapsed + running

    def start(self) -> None:
        """Let it run."""
        self._running_since = time.perf_counter()

    def stop(self) -> None:
        """Stop it; more can follow."""
        self.elapsed, self._running_since = self.seconds, None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside does not count."""
        self.stop()
        try:
            yield
        finally:
            self.start()


class TrainingLoop(L.LightningModule, ABC):
    """Runs iterations up to the next multiple of `log_every` in one Lightning training step.

    So Lightning's own work is paid once for all of them. The optimisation is manual.

    Args:
        iterations: length of training.
        log_every: iterations in one Lightning training step.
    """

    def __init__(self, iterations: int, log_every: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.iterations, self.log_every = iterations, log_every
        self.iteration = 0
        """Iterations done."""
        self.interrupted = False
        """Set it to stop training after the current iteration."""
        self.consistent = True
        """False in the middle of an iteration, when the state must not be saved."""
        self.clock = Clock()
        self.calibration_seconds = 0.0
        """The part of the clock's seconds that went into audits which correct the budget."""
        self._compiled_before = 0.0
        self.iteration_seconds: list[float] = []
        """Mean seconds an iteration, one entry for each Lightning training step."""
        self.share = ALONE
        """What this process has of each batch."""
        self.engine: Engine = Eager()
        """Executes the iterations; set another before training starts."""
        self.metrics: dict[str, float] = {}
        """What the last Lightning training step measured, the mean over its iterations."""

    @property
    @abstractmethod
    def members(self) -> Sequence[Any]:
        """The AuctionModules in training, one or several."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the iterations ready for the engine. Raises EngineFailed if it does not work."""

    @abstractmethod
    def run(self, first: int, last: int) -> None:
        """Do iterations `first` to `last` (exclusive), or until `interrupted`, counting `iteration` up."""

    def correct_budgets(self) -> None:
        """Let an audit correct each member's budget, if its schedule is one that audits correct."""
        for member in self.members:
            member.correct_budget()

    @abstractmethod
    def measure(self, first: int) -> None:
        """Bring buffers and `metrics` up to date after the iterations from `first` on."""

    @abstractmethod
    def is_finite(self) -> bool:
        """Whether every parameter and multiplier is a number."""

    def train_dataloader(self) -> Iterator[int]:
        """Lightning needs something to iterate over; the valuations follow from the iteration's number."""
        return repeat(0)

    def on_fit_start(self) -> None:
        """Follow the device and the checkpoint, whose optimiser state is not there yet."""
        self.clock.start()
        self.share = Share(self.trainer.global_rank, self.trainer.world_size)
        for member in self.members:
            member.settle()
        self.iteration = self.members[0].iteration

    def on_train_start(self) -> None:
        """Make the engine ready."""
        self.make_ready()

    def make_ready(self) -> None:
        """Prepare; with the eager engine, and a warning, where the chosen one does not work."""
        try:
            self.prepare()
        except EngineFailed as failure:
            warnings.warn(f"engine: eager, because {self.engine.name} does not work here ({failure})", stacklevel=1)
            self.engine = Eager()
            self.prepare()

    def on_fit_end(self) -> None:
        """Stop the clock."""
        self.clock.stop()

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Iterate up to the next multiple of `log_every`, or the end, or an interruption."""
        first = self.iteration
        start = time.perf_counter()
        self.consistent = False
        last, corrected = min(self.iterations, first - first % self.log_every + self.log_every), 0.0
        while self.iteration == first or (self.iteration < last and not self.interrupted):
            due = self.members[0].rmax.next_correction(self.iteration, self.iterations)
            self.run(self.iteration, min(last, due))
            if self.iteration == due < self.iterations:
                corrected -= time.perf_counter()
                self.correct_budgets()
                corrected += time.perf_counter()
        self.measure(first)
        self.consistent = True
        self.calibration_seconds += corrected
        self.iteration_seconds.append((time.perf_counter() - start - corrected) / (self.iteration - first))
        self.metrics["iterations_per_second"] = 1 / self.iteration_seconds[-1]
        self.trainer.should_stop = self.iteration == self.iterations

    def timings(self) -> dict[str, Any]:
        """Clock, engine and threads, as checkpoints have them."""
        clock = {
            "seconds": self.clock.seconds,
            "compile_seconds": self._compiled_before + self.engine.compile_seconds,
            "calibration_seconds": self.calibration_seconds,
            "iteration_seconds": list(self.iteration_seconds),
        }
        engine = {
            "name": self.engine.name,
            "threads": torch.get_num_threads(),
            "device": self.members[0].history.device.type,
            "population": len(self.members),
            "devices": self.share.count,
        }
        return {"clock": clock, "engine": engine}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is not part of the mathematics."""
        checkpoint |= {"completed": self.iteration, **self.timings()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the clock."""
        self.clock.elapsed = checkpoint["clock"]["seconds"]
        self._compiled_before = checkpoint["clock"]["compile_seconds"]
        self.calibration_seconds = checkpoint["clock"].get("calibration_seconds", 0.0)
        self.iteration_seconds = list(checkpoint["clock"]["iteration_seconds"])
