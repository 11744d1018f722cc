"""Training: the primal-dual iteration as a LightningModule with manual optimisation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from truthful.auditing import audit
from truthful.constraints import Constraint
from truthful.data import Valuations
from truthful.duals import Dual
from truthful.duals.budget import RATIO_FLOOR
from truthful.engine import Eager
from truthful.iteration import Iteration
from truthful.loop import TrainingDiverged, TrainingLoop
from truthful.mechanisms import Mechanism
from truthful.regret import RegretMode
from truthful.schedules import BudgetSchedule, RateSchedule
from truthful.settings import Setting
from truthful.streams import Stream, generator

RECENT = 100
"""Iterations over which training's regret is averaged to be compared with an audit's."""
RESULT_WINDOW = 1000
"""Iterations over which the training numbers of a result are averaged."""


class AuctionModule(TrainingLoop):
    """A mechanism, the regret it is trained against, and the price of that regret.

    The iterations are those of `truthful.iteration`.

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
        constraints: on the outcomes of truthful reports, by name.
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
        constraints: Mapping[str, Constraint] | None = None,
    ) -> None:
        super().__init__(iterations, log_every)
        if clip_norm is not None and not (isinstance(clip_norm, int | float) and clip_norm > 0):
            raise ValueError(f"trainer.clip_norm must be a positive number or null, got {clip_norm!r}")
        if rmax.uses_audits and not dual.uses_budget:
            raise ValueError(f"rmax=calibrated steers a budget, and {type(dual).__name__} has none; use dual=budget")
        if regret.needs_theorem and mechanism.theorem is None:
            raise ValueError(
                "regret=none is for mechanisms that are truthful by a theorem; "
                f"{type(mechanism).__name__} needs a search"
            )
        relaxes = type(mechanism).relaxed is not Mechanism.relaxed
        if relaxes and not regret.needs_theorem:
            raise ValueError(
                f"{type(mechanism).__name__} is truthful by a theorem and has no lies to search for; use regret=none, "
                "which comes with it"
            )
        if relaxes and constraints:
            warnings.warn(
                f"constraints see what training differentiates, and {type(mechanism).__name__} then chooses: its own "
                "violation, which the audit reports, may be another",
                stacklevel=2,
            )
        self.mechanism, self.setting, self.regret, self.dual = mechanism, setting, regret, dual
        self.rmax, self.lr_schedule, self.data = rmax, lr_schedule, data
        self.constraints = dict(constraints or {})
        self.constraint = nn.ModuleDict(self.constraints)  # checkpoints have them as the configuration does
        self.batch, self.seed, self.clip_norm = batch, seed, clip_norm
        self.register_buffer("completed", torch.tensor(0))
        self.register_buffer("history", torch.zeros(RESULT_WINDOW, 2))

        mechanism.initialise(generator(seed, Stream.INIT))
        data.prepare(setting, batch, seed)
        regret.prepare(setting, data.sample, generator(seed, Stream.START))
        for constraint in self.constraints.values():
            constraint.prepare()
        try:
            self.optimizer = optimizer(mechanism.parameters())
        except (ValueError, TypeError) as error:
            raise ValueError(f"optimizer: {error}") from error
        self._base_rate = float(self.optimizer.param_groups[0]["lr"])
        alike = {"bidders": setting.exchangeable_bidders, "items": setting.exchangeable_items}
        if mechanism.equivariant and not all(alike.values()):
            warnings.warn(
                f"{type(mechanism).__name__} cannot tell bidders apart, nor items, and the "
                f"{' and '.join(name for name, same in alike.items() if not same)} of this setting are not known to be "
                "exchangeable; use mechanism=regretnet, or mechanism=regretformer mechanism.positional=true",
                stacklevel=2,
            )
        if regret.fixed_step and lr_schedule.decays:
            warnings.warn(
                "a local regret with one fixed step and a decaying learning rate: a network optimised precisely learns "
                "to be honest exactly at that step and nowhere else (true regret up to 200 times the local one); "
                "trust only the audit",
                stacklevel=2,
            )

    @property
    def members(self) -> list[AuctionModule]:
        """This one."""
        return [self]

    def configure_optimizers(self) -> Optimizer:
        """The network's optimiser; the multipliers are buffers with a closed-form update."""
        return self.optimizer

    def settle(self) -> None:
        """Follow the module to its device and its checkpoint."""
        if self.data.sample is not None:
            self.data.sample = self.data.sample.to(self.history.device)
        for state in self.optimizer.state.values():  # those of a population's members Lightning does not know
            state.update({name: entry.to(self.history.device) for name, entry in state.items() if name != "step"})
        self.window = torch.zeros(self.log_every, 3 + self.setting.n_bidders + len(self.constraints)).to(self.history)
        self.iteration = int(self.completed)

    @property
    def mode(self) -> RegretMode:
        """The regret mode whose turn it is."""
        return self.regret.at(self.iteration / self.iterations)

    def prepare(self) -> None:
        """The iteration for the engine, compiled if the engine compiles."""
        parts = (self.mechanism, self.setting, self.mode, self.dual, self.optimizer)
        fuse = not isinstance(self.engine, Eager)
        steps = Iteration(*parts, self.clip_norm, self.engine, fuse, self.share, self.constraints.values())
        values, rows = self.next_batch()
        begun = self.mode.begin(self.setting, values, rows, self.starts())
        steps.ready(values, begun, steps.controls([self._base_rate], [1.0], 0)[0])
        object.__setattr__(self, "_steps", steps)  # not a part of this module: its tensors are ours already

    def next_batch(self) -> tuple[Tensor, slice | None]:
        """The valuations of this iteration, on the module's device, and their rows in the fixed sample."""
        values, rows = self.data(self.iteration)
        return values.to(self.history.device, non_blocking=True), rows

    def starts(self) -> torch.Generator:
        """For the starting points of this iteration."""
        return generator(self.seed, Stream.START, self.iteration + 1)

    def rates_and_budgets(self, first: int, last: int) -> tuple[list[float], list[float]]:
        """Learning rate and R_max of iterations `first` to `last`."""
        progress = [t / self.iterations for t in range(first, last)]
        return [self._base_rate * self.lr_schedule(share) for share in progress], [self.rmax(s) for s in progress]

    @property
    def eager_seconds(self) -> float:
        """A rough estimate of what the whole training takes with the eager engine on a CPU core."""
        parameters = sum(parameter.numel() for parameter in self.mechanism.parameters())
        operations = 2 * parameters * self.batch * self.setting.n_bidders
        passes = 3 + 2 * self.regret.evaluations
        return self.iterations * passes * max(7e-4, operations / 4e10)

    def run(self, first: int, last: int) -> None:
        """Do iterations `first` to `last`, or until interrupted."""
        rates, budgets = self.rates_and_budgets(first, last)
        controls = self._steps.controls(rates, budgets, first)
        for k, rate in enumerate(rates):
            if self.mode is not self._steps.regret:
                self._steps.count(self.iteration)
                self.make_ready()
            self.mechanism.anneal(self.iteration / self.iterations)
            step = self._steps.step(*self.next_batch(), self.starts(), controls[k], rate, self.iteration + 1)
            self.window[self.iteration % self.log_every] = step
            self.iteration += 1
            if self.interrupted:
                break
        self._steps.count(self.iteration)
        self.remember(first)

    def _latest(self, iterations: int) -> Tensor:
        first = max(0, self.iteration - min(iterations, RESULT_WINDOW))
        return self.history[torch.arange(first, self.iteration, device=self.history.device) % RESULT_WINDOW].double()

    def remember(self, first: int) -> None:
        """Keep what the iterations from `first` on have found."""
        rows = torch.arange(first, self.iteration, device=self.history.device)[-RESULT_WINDOW:]
        self.history[rows % RESULT_WINDOW] = self.window[rows % self.log_every, :2]

    def recent(self, iterations: int) -> tuple[float, float]:
        """Mean revenue and sum of regret of the last iterations, RESULT_WINDOW of them at most."""
        revenue, regret_sum = self._latest(iterations).mean(0).tolist()
        return revenue, regret_sum

    def correct_budget(self) -> None:
        """Let an audit on fresh held-out profiles correct the budget; of a network that has diverged, nothing."""
        if not self.is_finite():
            return

        def audited(samples: int) -> float:
            seed = self.seed + self.iteration
            report = audit(self.mechanism, self.setting, "fast", samples, seed, Stream.HELD_OUT)
            return report.regret_sum / max(report.revenue, RATIO_FLOOR)

        revenue, regret_sum = self._latest(RECENT).unbind(-1)
        ratio = (regret_sum / revenue.clamp_min(RATIO_FLOOR)).clamp_min(RATIO_FLOOR).log().mean().exp()
        progress, pace = self.iteration / self.iterations, self.dual.relative_rate() * self.iterations
        rate_left = max(0.0, self.lr_schedule(progress) - self.lr_schedule(1.0))
        self.rmax.correct(progress, rate_left, float(ratio), pace, lambda n: self.share.told(partial(audited, n)))

    def measure(self, first: int) -> None:
        """Bring the buffers and metrics up to date. Raises TrainingDiverged where a number is not finite."""
        start = first % self.log_every
        window = self.window[start : start + self.iteration - first]
        self.completed.fill_(self.iteration)
        finite = window.isfinite().all(-1)
        finite[-1] &= all(bool(multiplier.isfinite().all()) for multiplier in self.multipliers())
        if not bool(finite.all()):
            step = first + int(finite.logical_not().nonzero()[0]) + 1
            raise TrainingDiverged(
                f"a NaN or an infinity appeared at iteration {step} (revenue {float(window[step - first - 1, 0]):g}, "
                f"regret {float(window[step - first - 1, 1]):g}, multiplier {float(self.dual.multiplier.mean()):g}); "
                "lower optimizer.lr or dual.rate, or set trainer.clip_norm"
            )
        mean_revenue, regret_sum, *others = window.mean(0).tolist()
        regret, violations = others[: self.setting.n_bidders], others[self.setting.n_bidders : -1]
        self.metrics = {
            "revenue": mean_revenue,
            "regret": regret_sum / len(regret),
            "regret_sum": regret_sum,
            "regret_ratio": regret_sum / mean_revenue if mean_revenue else float("nan"),
            "multiplier": float(self.dual.multiplier.mean()),
            "learning_rate": self._base_rate * self.lr_schedule((self.iteration - 1) / self.iterations),
            "gradient_norm": float(window[-1, -1]),
        }
        if self.dual.uses_budget:
            self.metrics |= {"rmax": self.rmax((self.iteration - 1) / self.iterations), **self.rmax.metrics()}
        if len(regret) > 1:
            self.metrics |= {f"regret_bidder_{i}": mean for i, mean in enumerate(regret, 1)}
        for (name, constraint), violation in zip(self.constraints.items(), violations, strict=True):
            self.metrics[f"constraint/{name}"] = violation
            self.metrics[f"constraint/{name}_multiplier"] = float(constraint.dual.multiplier.mean())

    def multipliers(self) -> Iterator[Tensor]:
        """The price of regret, and that of each constraint."""
        yield self.dual.multiplier
        for constraint in self.constraints.values():
            yield constraint.dual.multiplier

    def is_finite(self) -> bool:
        """Whether every parameter and multiplier is a number."""
        return all(bool(tensor.isfinite().all()) for tensor in [*self.mechanism.parameters(), *self.multipliers()])
