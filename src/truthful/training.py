"""Training: the primal-dual iteration as a LightningModule with manual optimisation."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from truthful.data import Valuations
from truthful.duals import Dual
from truthful.engine import Eager, Engine, EngineFailed
from truthful.iteration import Iteration
from truthful.mechanisms import Mechanism
from truthful.regret import RegretMode
from truthful.schedules import BudgetSchedule, RateSchedule
from truthful.settings import Setting
from truthful.streams import Stream, generator

RESULT_WINDOW = 1000
"""Iterations over which the training numbers of a result are averaged."""


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


class AuctionModule(L.LightningModule):
    """A mechanism, the regret it is trained against, and the price of that regret.

    One Lightning training step runs the iterations (`truthful.iteration`) up to the next multiple of `log_every`, so
    that Lightning's own work is paid once for all of them.

    Args:
        mechanism: what is trained.
        setting: who bids.
        regret: the regret mode.
        dual: the price of regret.
        rmax: schedule of the budget.
        optimizer: makes the optimiser from the mechanism's parameters.
        lr_schedule: factor on the network's learning rate.
        data: training valuations.
        iterations: length of training.
        batch: profiles an iteration.
        seed: of everything random in training.
        clip_norm: largest norm of the gradient, or None.
        log_every: iterations in one Lightning training step.
    """

    completed: Tensor
    """Iterations done."""
    _steps: Iteration
    history: Tensor
    """Revenue and sum of regret of the last iterations, row t % RESULT_WINDOW."""

    def __init__(
        self,
        mechanism: Mechanism,
        setting: Setting,
        regret: RegretMode,
        dual: Dual,
        rmax: BudgetSchedule,
        optimizer: Callable[..., Optimizer],
        lr_schedule: RateSchedule,
        data: Valuations,
        iterations: int,
        batch: int,
        seed: int,
        clip_norm: float | None,
        log_every: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if clip_norm is not None and not (isinstance(clip_norm, int | float) and clip_norm > 0):
            raise ValueError(f"trainer.clip_norm must be a positive number or null, got {clip_norm!r}")
        self.mechanism, self.setting, self.regret, self.dual = mechanism, setting, regret, dual
        self.rmax, self.lr_schedule, self.data = rmax, lr_schedule, data
        self.iterations, self.batch, self.seed = iterations, batch, seed
        self.clip_norm, self.log_every = clip_norm, log_every
        self.register_buffer("completed", torch.tensor(0))
        self.register_buffer("history", torch.zeros(RESULT_WINDOW, 2))

        mechanism.initialise(generator(seed, Stream.INIT))
        data.prepare(setting, batch, seed)
        regret.prepare(setting, data.sample, generator(seed, Stream.START))
        try:
            self._optimizer = optimizer(mechanism.parameters())
        except (ValueError, TypeError) as error:
            raise ValueError(f"optimizer: {error}") from error
        self._base_rate = float(self._optimizer.param_groups[0]["lr"])
        if regret.local and lr_schedule.decays and getattr(regret, "kept", None) is None:
            warnings.warn(
                "a local regret with one fixed step and a decaying learning rate: a network optimised precisely learns "
                "to be honest exactly at that step and nowhere else (true regret up to 200 times the local one); "
                "trust only the audit",
                stacklevel=2,
            )

        self.iteration = 0
        """`completed` without asking the device."""
        self.interrupted = False
        """Set it to stop training after the current iteration."""
        self.consistent = True
        """False in the middle of an iteration, when the state must not be saved."""
        self.clock = Clock()
        self._compiled_before = 0.0
        self.iteration_seconds: list[float] = []
        """Mean seconds an iteration, one entry for each Lightning training step."""
        self.engine: Engine = Eager()
        """Executes the iterations; set another before training starts."""
        self.metrics: dict[str, float] = {}
        """What the last Lightning training step measured, the mean over its iterations."""

    def configure_optimizers(self) -> Optimizer:
        """The network's optimiser; the multipliers are buffers with a closed-form update."""
        return self._optimizer

    def train_dataloader(self) -> Iterator[int]:
        """Lightning needs something to iterate over; the valuations follow from the iteration's number."""
        return repeat(0)

    def on_fit_start(self) -> None:
        """Follow the module to its device; make the engine ready."""
        self.clock.start()
        if self.data.sample is not None:
            self.data.sample = self.data.sample.to(self.device)
        self._window = torch.zeros(self.log_every, 3 + self.setting.n_bidders).to(self.history)
        self.iteration = int(self.completed)
        try:
            steps = self._prepared(self.engine)
        except EngineFailed as failure:
            warnings.warn(f"engine: eager, because {self.engine.name} does not work here ({failure})", stacklevel=2)
            self.engine = Eager()
            steps = self._prepared(self.engine)
        object.__setattr__(self, "_steps", steps)  # not a part of this module: its tensors are ours already

    def _prepared(self, engine: Engine) -> Iteration:
        """The iteration for an engine, compiled if the engine compiles."""
        parts = (self.mechanism, self.setting, self.regret, self.dual, self._optimizer)
        steps = Iteration(*parts, self.clip_norm, engine, fuse=not isinstance(engine, Eager))
        values, rows = self.data(self.iteration)
        controls = steps.controls([0.0], [1.0], 0)
        steps.ready(values, rows, generator(self.seed, Stream.START, self.iteration + 1), controls[0])
        return steps

    @property
    def eager_seconds(self) -> float:
        """A rough estimate of what the whole training takes with the eager engine on a CPU core."""
        parameters = sum(parameter.numel() for parameter in self.mechanism.parameters())
        operations = 2 * parameters * self.batch * self.setting.n_bidders
        passes = 3 + 2 * self.regret.evaluations
        return self.iterations * passes * max(7e-4, operations / 4e10)

    def on_fit_end(self) -> None:
        """Stop the clock."""
        self.clock.stop()

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Iterate up to the next multiple of `log_every`, or the end, or an interruption."""
        first = self.iteration
        last = min(self.iterations, first - first % self.log_every + self.log_every)
        start = time.perf_counter()
        progress = [t / self.iterations for t in range(first, last)]
        rates = [self._base_rate * self.lr_schedule(share) for share in progress]
        controls = self._steps.controls(rates, [self.rmax(share) for share in progress], first)
        self.consistent = False
        for k, rate in enumerate(rates):
            values, rows = self.data(self.iteration)
            starts = generator(self.seed, Stream.START, self.iteration + 1)
            self._window[k] = self._steps.step(values, rows, starts, controls[k], rate)
            self.iteration += 1
            if self.interrupted:
                break
        window = self._window[: self.iteration - first]
        self._record(first, window)
        self.consistent = True
        self._measure(first, window, rates[len(window) - 1])
        self.iteration_seconds.append((time.perf_counter() - start) / len(window))
        self.metrics["iterations_per_second"] = 1 / self.iteration_seconds[-1]
        self.trainer.should_stop = self.iteration == self.iterations

    def _record(self, first: int, window: Tensor) -> None:
        """Bring the buffers up to date after some iterations."""
        rows = torch.arange(first, self.iteration, device=self.history.device) % RESULT_WINDOW
        self.history[rows[-RESULT_WINDOW:]] = window[-RESULT_WINDOW:, :2]
        self.completed.fill_(self.iteration)
        self._steps.count(self.iteration)

    def _measure(self, first: int, window: Tensor, rate: float) -> None:
        finite = window.isfinite().all(-1)
        finite[-1] &= self.dual.multiplier.isfinite().all()
        if not bool(finite.all()):
            step = first + int(finite.logical_not().nonzero()[0]) + 1
            raise TrainingDiverged(
                f"a NaN or an infinity appeared at iteration {step} (revenue {float(window[step - first - 1, 0]):g}, "
                f"regret {float(window[step - first - 1, 1]):g}, multiplier {float(self.dual.multiplier.mean()):g}); "
                "lower optimizer.lr or dual.rate, or set trainer.clip_norm"
            )
        mean_revenue, regret_sum, *regret, _ = window.mean(0).tolist()
        self.metrics = {
            "revenue": mean_revenue,
            "regret": regret_sum / len(regret),
            "regret_sum": regret_sum,
            "regret_ratio": regret_sum / mean_revenue if mean_revenue else float("nan"),
            "multiplier": float(self.dual.multiplier.mean()),
            "learning_rate": rate,
            "gradient_norm": float(window[-1, -1]),
        }
        if self.dual.uses_budget:
            self.metrics["rmax"] = self.rmax((self.iteration - 1) / self.iterations)
        if len(regret) > 1:
            self.metrics |= {f"regret_bidder_{i}": mean for i, mean in enumerate(regret, 1)}

    def is_finite(self) -> bool:
        """Whether every parameter and multiplier is a number."""
        return all(bool(tensor.isfinite().all()) for tensor in [*self.mechanism.parameters(), self.dual.multiplier])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the clock, which is not part of the mathematics."""
        checkpoint["clock"] = {
            "seconds": self.clock.seconds,
            "compile_seconds": self._compiled_before + self.engine.compile_seconds,
            "iteration_seconds": list(self.iteration_seconds),
        }
        checkpoint["engine"] = {"name": self.engine.name, "threads": torch.get_num_threads()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the clock."""
        self.clock.elapsed = checkpoint["clock"]["seconds"]
        self._compiled_before = checkpoint["clock"]["compile_seconds"]
        self.iteration_seconds = list(checkpoint["clock"]["iteration_seconds"])
