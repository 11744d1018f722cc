"""Training of several networks as one batched network."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from truthful.loop import TrainingDiverged, TrainingLoop
from truthful.population import Population
from truthful.training import AuctionModule


class PopulationModule(TrainingLoop):
    """Trains members that differ in seed, and perhaps in budget or learning rate, in one process.

    Each member is the AuctionModule that it would be alone; their tensors become views of stacked ones. A member that
    diverges is given up; the others go on.

    Args:
        members: the members.
    """

    def __init__(self, members: Sequence[AuctionModule]) -> None:
        first = members[0]
        super().__init__(first.iterations, first.log_every)
        if first.regret.learns:
            raise ValueError("a population cannot share a search that learns: regret=misreporter needs population=1")
        self._members = nn.ModuleList(members)
        self.setting, self.seed = first.setting, first.seed
        self.failed: dict[int, str] = {}
        """Why members were given up, by seed."""

    @property
    def members(self) -> list[AuctionModule]:
        """Those in training and those given up."""
        return [member for member in self._members if isinstance(member, AuctionModule)]

    @property
    def eager_seconds(self) -> float:
        """As for one."""
        return sum(member.eager_seconds for member in self.members)

    def configure_optimizers(self) -> None:
        """Each member has its own, which Lightning need not know."""

    def prepare(self) -> None:
        """Stack the members; compile, if the engine compiles."""
        members = self.members
        self._population = Population(
            [member.mechanism for member in members],
            self.setting,
            [member.mode for member in members],
            [member.dual for member in members],
            [member.optimizer for member in members],
            members[0].clip_norm,
            self.engine,
            [list(member.constraints.values()) for member in members],
        )
        controls = self._population.controls([[m._base_rate] for m in members], [[1.0]] * len(members), 0)
        self._population.ready(*self._begin(), controls[0])

    def _begin(self) -> tuple[list[tuple[Tensor, slice | None]], list[torch.Generator]]:
        return [member.next_batch() for member in self.members], [member.starts() for member in self.members]

    def run(self, first: int, last: int) -> None:
        """Do iterations `first` to `last`, or until interrupted."""
        rates, budgets = zip(*(member.rates_and_budgets(first, last) for member in self.members), strict=True)
        controls = self._population.controls(rates, budgets, first)
        for k in range(last - first):
            if self._population.regrets[0] is not self.members[0].mode:
                self._population.count(self.iteration)
                self.make_ready()
            self._population.iteration.mechanism.anneal(self.iteration / self.iterations)
            record = self._population.step(*self._begin(), controls[k], self.iteration + 1)
            for member, own in zip(self.members, record, strict=True):
                member.window[self.iteration % self.log_every] = own
                member.iteration += 1
            self.iteration += 1
            if self.interrupted:
                break
        self._population.count(self.iteration)
        for member in self.members:
            member.remember(first)

    def measure(self, first: int) -> None:
        """Each member's buffers and metrics; `metrics` are their means, and each member's own under its name."""
        for member in self.members:
            if member.seed not in self.failed:
                try:
                    member.measure(first)
                except TrainingDiverged as error:
                    self.failed[member.seed] = str(error)
        alive = [member for member in self.members if member.seed not in self.failed]
        if not alive:
            raise TrainingDiverged("; ".join(f"seed {seed}: {reason}" for seed, reason in self.failed.items()))
        self.metrics = {name: fmean(member.metrics[name] for member in alive) for name in alive[0].metrics}
        for member in alive:
            names = ("revenue", "regret", "multiplier", "rmax", *(f"constraint/{name}" for name in member.constraints))
            own = {name: member.metrics[name] for name in names if name in member.metrics}
            self.metrics |= {f"member_{member.seed}/{name}": number for name, number in own.items()}

    def is_finite(self) -> bool:
        """Whether there is a member whose parameters and multiplier are all numbers."""
        return any(member.is_finite() for member in self.members)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the members' optimisers, and who was given up."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["optimizers"] = [member.optimizer.state_dict() for member in self.members]
        checkpoint["failed"] = dict(self.failed)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore them."""
        super().on_load_checkpoint(checkpoint)
        for member, state in zip(self.members, checkpoint["optimizers"], strict=True):
            member.optimizer.load_state_dict(state)
        self.failed = dict(checkpoint["failed"])

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Load what training has saved, also where there is nothing left to train."""
        self.load_state_dict(checkpoint["state_dict"])
        self.on_load_checkpoint(checkpoint)

    def member_checkpoint(self, member: AuctionModule) -> dict[str, Any]:
        """What the checkpoint of a run of this member alone has that evaluation reads."""
        state = {name: tensor.clone() for name, tensor in member.state_dict().items()}
        return {"state_dict": state, **self.timings()}
