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
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer

from truthful.auction import revenue
from truthful.data import Valuations
from truthful.duals import Dual
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

    One iteration (paper, section 2.4, in the order of the released implementation): search misreports; one optimiser
    step of the network on -revenue + penalty; then the dual's update with regret and revenue from before that step.

    One Lightning training step runs the iterations up to the next multiple of `log_every`, so that Lightning's own
    work is paid once for all of them.

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
        self.iteration_seconds: list[float] = []
        """Mean seconds an iteration, one entry for each Lightning training step."""
        self._window = torch.zeros(log_every, 2 + setting.n_bidders)
        self.metrics: dict[str, float] = {}
        """What the last Lightning training step measured, the mean over its iterations."""

    def configure_optimizers(self) -> Optimizer:
        """The network's optimiser; the multipliers are buffers with a closed-form update."""
        return self._optimizer

    def train_dataloader(self) -> Iterator[int]:
        """Lightning needs something to iterate over; the valuations follow from the iteration's number."""
        return repeat(0)

    def on_fit_start(self) -> None:
        """Follow the module to its device."""
        if self.data.sample is not None:
            self.data.sample = self.data.sample.to(self.device)
        self._window = self._window.to(self.device)
        self.iteration = int(self.completed)
        self.clock.start()

    def on_fit_end(self) -> None:
        """Stop the clock."""
        self.clock.stop()

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Iterate up to the next multiple of `log_every`, or the end, or an interruption."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        first = self.iteration
        last = self._last = min(self.iterations, first - first % self.log_every + self.log_every)
        start = time.perf_counter()
        gradient_norm = None
        while self.iteration < last and not self.interrupted:
            gradient_norm = self._iterate(optimizer, self._window[self.iteration - first])
        done = self.iteration - first
        if done:
            self._measure(first, gradient_norm)
            self.iteration_seconds.append((time.perf_counter() - start) / done)
            self.metrics["iterations_per_second"] = 1 / self.iteration_seconds[-1]

    def _iterate(self, optimizer: LightningOptimizer, record: Tensor) -> Tensor | None:
        """One primal-dual iteration. Writes revenue, regret's sum and each bidder's regret to `record`."""
        self.consistent = False
        progress = self.iteration / self.iterations
        for group in optimizer.param_groups:
            group["lr"] = self._base_rate * self.lr_schedule(progress)
        values, rows = self.data(self.iteration)
        values = values.to(self.device)

        truthful = self.mechanism(values)
        mean_revenue = revenue(truthful).mean()
        starts = generator(self.seed, Stream.START, self.iteration + 1)
        regret = self.regret(self.mechanism, self.setting, values, truthful, rows, starts)
        optimizer.zero_grad()
        self.manual_backward(self.dual(regret, mean_revenue) - mean_revenue)
        gradient_norm = self._clip()
        optimizer.step()
        mean_revenue, regret = mean_revenue.detach(), regret.detach()
        self.dual.update(regret, mean_revenue, self.rmax(progress))

        record[0], record[1], record[2:] = mean_revenue, regret.sum(), regret
        self.history[self.iteration % RESULT_WINDOW] = record[:2]
        self.completed.add_(1)
        self.iteration += 1
        self.consistent = True
        return gradient_norm

    def _clip(self) -> Tensor | None:
        """Clip the gradient if asked to, and measure it at the last iteration of a training step."""
        if self.clip_norm is not None:
            return torch.nn.utils.clip_grad_norm_(self.mechanism.parameters(), self.clip_norm)
        if self.iteration + 1 == self._last:
            return torch.nn.utils.get_total_norm([p.grad for p in self.mechanism.parameters() if p.grad is not None])
        return None

    def _measure(self, first: int, gradient_norm: Tensor | None) -> None:
        window = self._window[: self.iteration - first]
        finite = window.isfinite().all(-1)
        finite[-1] &= self.dual.multiplier.isfinite().all()
        if not bool(finite.all()):
            step = first + int(finite.logical_not().nonzero()[0]) + 1
            raise TrainingDiverged(
                f"a NaN or an infinity appeared at iteration {step} (revenue {float(window[step - first - 1, 0]):g}, "
                f"regret {float(window[step - first - 1, 1]):g}, multiplier {float(self.dual.multiplier.mean()):g}); "
                "lower optimizer.lr or dual.rate, or set trainer.clip_norm"
            )
        mean_revenue, regret_sum, *regret = window.mean(0).tolist()
        self.metrics = {
            "revenue": mean_revenue,
            "regret": regret_sum / len(regret),
            "regret_sum": regret_sum,
            "regret_ratio": regret_sum / mean_revenue if mean_revenue else float("nan"),
            "multiplier": float(self.dual.multiplier.mean()),
            "learning_rate": float(self._optimizer.param_groups[0]["lr"]),
        }
        if self.dual.uses_budget:
            self.metrics["rmax"] = self.rmax((self.iteration - 1) / self.iterations)
        if gradient_norm is not None:
            self.metrics["gradient_norm"] = float(gradient_norm)
        if len(regret) > 1:
            self.metrics |= {f"regret_bidder_{i}": mean for i, mean in enumerate(regret, 1)}

    def is_finite(self) -> bool:
        """Whether every parameter and multiplier is a number."""
        return all(bool(tensor.isfinite().all()) for tensor in [*self.mechanism.parameters(), self.dual.multiplier])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the clock, which is not part of the mathematics."""
        checkpoint["clock"] = {"seconds": self.clock.seconds, "iteration_seconds": list(self.iteration_seconds)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the clock."""
        self.clock.elapsed = checkpoint["clock"]["seconds"]
        self.iteration_seconds = list(checkpoint["clock"]["iteration_seconds"])
