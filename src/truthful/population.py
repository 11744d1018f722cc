"""Several networks of one shape trained as one: every tensor has one axis more, every product is a batched one.

Each member stays what it would be alone, with its own sample, draws, multiplier and optimiser state; only the
arithmetic is shared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import Optimizer

from truthful.auction import Outcome
from truthful.constraints import Constraint
from truthful.duals import Dual
from truthful.engine import Call, Engine
from truthful.iteration import Iteration, fused
from truthful.mechanisms import Mechanism
from truthful.regret import Begun, RegretMode
from truthful.settings import Setting
from truthful.shapes import Float


class Stacked(Mechanism):
    """Mechanisms that differ in their parameters only, as one whose first axis is the member.

    The members' parameters become views of the stack: what trains the stack trains them. Buffers are the first one's.

    Args:
        members: the mechanisms.
    """

    def __init__(self, members: Sequence[Mechanism]) -> None:
        first = members[0]
        super().__init__(first.n_bidders, first.n_items, first.demand)
        self.budgeted, self.features = first.budgeted, first.features
        self._names = [f"module.{name}" for name, _ in first.named_parameters()]
        self._template = (copy.deepcopy(first),)  # in a tuple: its parameters are not ours
        self._members = tuple(members)
        self._shared = [name for name, _ in first.named_buffers()]
        for k, (_, buffer) in enumerate(first.named_buffers()):
            self.register_buffer(f"shared_{k}", buffer)
        columns = zip(*(list(member.parameters()) for member in members), strict=True)
        self.stacks = nn.ParameterList([nn.Parameter(_stacked(column)) for column in columns])

    def forward(self, bids: Float[Tensor, "p *b n c"]) -> Outcome:
        """Each member's outcome for its own profiles."""
        return self._each(lambda member, own: member(own), bids)

    def relaxed(self, bids: Float[Tensor, "p *b n c"]) -> Outcome:
        """What training differentiates of each member."""
        return self._each(lambda member, own: member.relaxed(own), bids)

    def anneal(self, progress: float) -> None:
        """All members alike."""
        for member in self._members:
            member.anneal(progress)

    def _each(self, rule: Callable[[Mechanism, Tensor], Outcome], bids: Float[Tensor, "p *b n c"]) -> Outcome:
        called = Call(rule, self._template[0])
        shared = {f"module.{name}": getattr(self, f"shared_{k}") for k, name in enumerate(self._shared)}

        def one(parameters: tuple[Tensor, ...], own: Tensor) -> tuple[Tensor, Tensor]:
            outcome = functional_call(called, dict(zip(self._names, parameters, strict=True)) | shared, (own,))
            return outcome.allocation, outcome.payment

        return Outcome(*vmap(one)(tuple(self.stacks), bids), self.budgeted)


class Population:
    """The iterations of several members, done together.

    Args:
        mechanisms, regrets, duals, optimizers: of the members. They must differ in numbers only, and the optimisers
            must be plain Adam or Soap. Their tensors become views of stacked ones.
        setting: who bids.
        clip_norm: largest norm of each member's gradient, or None.
        engine: executes the iterations.
        constraints: of each member, the same but for their multipliers.
    """

    def __init__(
        self,
        mechanisms: Sequence[Mechanism],
        setting: Setting,
        regrets: Sequence[RegretMode],
        duals: Sequence[Dual],
        optimizers: Sequence[Optimizer],
        clip_norm: float | None,
        engine: Engine,
        constraints: Sequence[Sequence[Constraint]] = (),
    ) -> None:
        parts = [part for part in map(fused, optimizers) if part is not None]
        if len(parts) < len(optimizers):
            raise ValueError(
                "a population needs optimizer=adam, without weight decay, amsgrad or maximize, or optimizer=soap, got "
                f"{type(optimizers[0]).__name__}"
            )
        self.setting, self.regrets = setting, regrets
        dual, stacked = copy.deepcopy(duals[0]), copy.deepcopy(parts[0])
        shared = copy.deepcopy(list(constraints[0])) if constraints else []
        prices = [(one.dual, [own[k].dual for own in constraints]) for k, one in enumerate(shared)]
        for target, sources in ((dual, duals), (stacked, parts), *prices):
            for name, _ in target.named_buffers():
                setattr(target, name, _stacked([getattr(source, name) for source in sources]))
                for source, view in zip(sources, getattr(target, name), strict=True):
                    setattr(source, name, view)
        for part, optimizer in zip(parts, optimizers, strict=True):
            part.adopt(optimizer)
        self._parts, self._stacked = parts, stacked
        self.iteration = Iteration(
            Stacked(mechanisms),
            setting,
            copy.copy(regrets[0]),
            dual,
            optimizers[0],
            clip_norm,
            engine,
            fuse=False,
            constraints=shared,
        )
        self.iteration.fused = stacked

    def controls(
        self, rates: Sequence[Sequence[float]], budgets: Sequence[Sequence[float]], first: int
    ) -> Float[Tensor, "t p 4"]:
        """As in `Iteration`, for each member."""
        members = [self.iteration.controls(*pair, first) for pair in zip(rates, budgets, strict=True)]
        return torch.stack(members, 1)

    def ready(
        self,
        batches: Sequence[tuple[Tensor, slice | None]],
        generators: Sequence[torch.Generator],
        controls: Float[Tensor, "p 4"],
    ) -> None:
        """Compile, if the engine does."""
        self.iteration.ready(*self._begin(batches, generators), controls)

    def step(
        self,
        batches: Sequence[tuple[Tensor, slice | None]],
        generators: Sequence[torch.Generator],
        controls: Float[Tensor, "p 4"],
        completed: int,
    ) -> Float[Tensor, "p k"]:
        """One iteration of every member; arguments and record as in `Iteration`, one for each."""
        record, misreports, _ = self.iteration.ready(*self._begin(batches, generators), controls)()
        for regret, (_, rows), misreport in zip(self.regrets, batches, misreports, strict=True):
            regret.store(rows, misreport)
        self._stacked.between(completed)
        return record

    def _begin(
        self, batches: Sequence[tuple[Tensor, slice | None]], generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Begun]:
        begun = [
            regret.begin(self.setting, *batch, generator)
            for regret, batch, generator in zip(self.regrets, batches, generators, strict=True)
        ]
        values = torch.stack([values for values, _ in batches])
        return values, pytree.tree_map(lambda *column: torch.stack(column), *begun)

    def count(self, completed: int) -> None:
        """Say how many iterations are done, for the optimisers' own counts."""
        for part in self._parts:
            part.count_steps(completed)


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """A stack of which the tensors become views."""
    stack = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, view in zip(tensors, stack, strict=True):
        tensor.data = view
    return stack
