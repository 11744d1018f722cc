"""What happens around the training steps: log, audit, show progress, save, stop."""

from __future__ import annotations

import signal
import threading
import time
import warnings
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from truthful import checkpoints
from truthful.auditing import audit
from truthful.console import SECONDS_BETWEEN_LINES
from truthful.logging import alert, log_audited, log_image, log_metrics
from truthful.loop import TrainingDiverged, TrainingLoop
from truthful.plots import can_show_allocation, save_allocation
from truthful.results import CHECKPOINT, exploitation
from truthful.streams import Stream
from truthful.training import RECENT


class TrainingInterrupted(RuntimeError):
    """Training was asked to stop; it can be continued."""


def crossed(module: TrainingLoop, every: int) -> bool:
    """Whether the last training step reached or passed a multiple of `every` iterations."""
    before = (module.iteration - 1) // module.log_every * module.log_every
    return module.iteration // every > before // every


class LogMetrics(Callback):
    """Send what each training step measured to the loggers."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: TrainingLoop, *_: Any) -> None:
        """After each training step."""
        log_metrics(trainer.loggers, pl_module.metrics, pl_module.iteration)


class PeriodicAudit(Callback):
    """A `fast` audit on held-out profiles during training, off the training clock; of a population, the means.

    Args:
        every: iterations between audits; 0: none.
        samples: number of held-out profiles.
        seed: of the profiles and starts.
        pictures: folder for the allocation heat maps.
        limit: warn, once, when the audit finds more than so many times the regret that training sees; None: never.
    """

    def __init__(self, every: int, samples: int, seed: int, pictures: Path, limit: float | None) -> None:
        self.every, self.samples, self.seed, self.pictures, self.limit = every, samples, seed, pictures, limit
        self.latest: dict[str, float] = {}
        self._warned = False

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: TrainingLoop, *_: Any) -> None:
        """Every `every` iterations, but not at the end, where the final audit is."""
        if not self.every or not crossed(pl_module, self.every) or pl_module.iteration == pl_module.iterations:
            return
        if not pl_module.is_finite():  # what comes next will say so
            return
        with pl_module.clock.paused():
            members = [member for member in pl_module.members if member.is_finite()]
            reports = [
                audit(member.mechanism, member.setting, "fast", self.samples, self.seed, Stream.HELD_OUT)
                for member in members
            ]
            names = ("revenue", "regret", "regret_sum", "regret_p95", "regret_max", "distance")
            self.latest = {name: fmean(getattr(report, name) for report in reports) for name in names}
            seen = [member.recent(RECENT)[1] for member in members]
            self.latest["training_regret_sum"] = fmean(seen)
            ratios = [exploitation(report.regret_sum, own) for report, own in zip(reports, seen, strict=True)]
            if known := [ratio for ratio in ratios if ratio is not None]:
                self.latest["exploitation"] = fmean(known)
            log_audited(trainer.loggers, "held_out", self.latest, pl_module.iteration)
            if len(pl_module.members) > 1:
                own = {
                    f"member_{member.seed}/held_out/{name}": getattr(report, name)
                    for member, report in zip(members, reports, strict=True)
                    for name in ("revenue", "regret")
                }
                log_metrics(trainer.loggers, own, pl_module.iteration)
            self._warn(trainer, pl_module.iteration)
            first = pl_module.members[0]
            if can_show_allocation(first.setting):
                path = self.pictures / "allocation.png"
                save_allocation(first.mechanism, first.setting, path)
                log_image(trainer.loggers, "allocation", path, pl_module.iteration)

    def _warn(self, trainer: L.Trainer, iteration: int) -> None:
        ratio = self.latest.get("exploitation", 0.0)
        if self.limit is None or ratio <= self.limit or self._warned:
            return
        self._warned = True
        sentence = (
            f"the training search is being exploited: the audit finds {ratio:.1f} times the regret that training sees "
            f"(iteration {iteration}); compare and choose by audited numbers only"
        )
        warnings.warn(sentence, stacklevel=1)
        alert(trainer.loggers, "training search exploited", sentence)


class Checkpoints(Callback):
    """Save every `every` iterations, at the end, when interrupted, and on an error between two iterations.

    Ctrl-C and SIGTERM end training after the current iteration; a second Ctrl-C ends it at once.

    Args:
        folder: the run folder.
        every: iterations between checkpoints.
        run: plain types that are stored in the checkpoint under `run`.
    """

    def __init__(self, folder: Path, every: int, run: dict[str, Any]) -> None:
        self.path, self.every, self.run = folder / CHECKPOINT, every, run
        self._handlers: dict[signal.Signals, Any] = {}

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what identifies the run."""
        checkpoint["run"] = self.run

    def on_train_start(self, trainer: L.Trainer, pl_module: TrainingLoop) -> None:
        """Take over the signals."""
        if threading.current_thread() is not threading.main_thread():
            return

        def stop(number: int, frame: FrameType | None) -> None:
            pl_module.interrupted = True
            if number == signal.SIGINT:  # Lightning answers SIGTERM by talking to processes that may be busy
                signal.signal(number, self._handlers[signal.SIGINT])

        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, stop)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: TrainingLoop, *_: Any) -> None:
        """Save when it is time; stop when asked to."""
        if pl_module.interrupted and pl_module.iteration < pl_module.iterations:
            raise TrainingInterrupted(f"interrupted after iteration {pl_module.iteration}")
        if crossed(pl_module, self.every) or pl_module.iteration == pl_module.iterations:
            if not pl_module.is_finite():
                raise TrainingDiverged(
                    f"a NaN or an infinity appeared in the weights by iteration {pl_module.iteration}"
                )
            self._save(trainer, pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save what can be continued from; after a NaN, the last good checkpoint stays."""
        assert isinstance(pl_module, TrainingLoop)
        diverged = isinstance(exception, TrainingDiverged) or not pl_module.is_finite()
        if pl_module.consistent and pl_module.iteration and not diverged:
            self._save(trainer, pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _save(self, trainer: L.Trainer, module: TrainingLoop) -> None:
        checkpoints.save(self.path, lambda path: trainer.save_checkpoint(path))


class ShowProgress(Callback):
    """A progress bar, or a line every SECONDS_BETWEEN_LINES where the output is no terminal.

    Args:
        console: where to show it.
        audits: the periodic audit whose latest numbers are shown, too.
    """

    def __init__(self, console: Console, audits: PeriodicAudit) -> None:
        self.console, self.audits = console, audits
        self._bar: Progress | None = None
        self._last_line = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: TrainingLoop) -> None:
        """Draw the bar."""
        self._bar = Progress(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task("", total=pl_module.iterations, completed=pl_module.iteration, numbers="")
        self._last_line = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: TrainingLoop, *_: Any) -> None:
        """Show the latest numbers."""
        if not pl_module.metrics or self._bar is None:
            return
        self._bar.update(self._task, completed=pl_module.iteration, numbers=self._numbers(pl_module))
        now, finished = time.monotonic(), pl_module.iteration == pl_module.iterations
        if not self.console.is_terminal and (finished or now - self._last_line >= SECONDS_BETWEEN_LINES):
            self._last_line = now
            left = (pl_module.iterations - pl_module.iteration) / pl_module.metrics["iterations_per_second"]
            self.console.print(
                f"{pl_module.iteration}/{pl_module.iterations}  {int(left // 60)}:{int(left % 60):02d} left  "
                f"{self._numbers(pl_module)}",
                soft_wrap=True,
            )

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Remove the bar, so that the error is seen."""
        self._stop()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Remove the bar."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _numbers(self, module: TrainingLoop) -> str:
        shown = module.metrics
        parts = [f"{shown['iterations_per_second']:.0f} it/s", f"revenue {shown['revenue']:.4f}"]
        searched = not module.members[0].regret.needs_theorem
        if searched:
            parts += [f"training regret {shown['regret']:.5f}", f"multiplier {shown['multiplier']:.1f}"]
        if searched and "rmax" in shown:
            parts.append(f"R_max {shown['rmax']:.2g}")
        if self.audits.latest:
            parts.append(f"held-out regret {self.audits.latest['regret']:.5f}")
        if "exploitation" in self.audits.latest:
            parts.append(f"{self.audits.latest['exploitation']:.1f} times training's")
        return "  ".join(parts)
