"""One primal-dual iteration, written once as a function of tensors and executed by any engine."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from truthful.auction import revenue
from truthful.constraints import Constraint
from truthful.distributed import ALONE, Share
from truthful.duals import Dual
from truthful.engine import Engine
from truthful.mechanisms import Mechanism
from truthful.optimizers import Soap, soap_update, turn, turn_is_due
from truthful.regret import Begun, RegretMode
from truthful.settings import Setting
from truthful.shapes import Float


class Iteration(nn.Module):
    """Search misreports; one optimiser step of the network on -revenue + penalty; the dual's update.

    The order is that of the released implementation (paper, section 2.4): the dual sees regret and revenue from before
    the network's step.

    Args:
        mechanism, setting, regret, dual: what is trained, on whom, against what, at what price.
        optimizer: of the mechanism's parameters.
        clip_norm: largest norm of the gradient, or None.
        engine: executes it.
        fuse: make the optimiser's step part of the function if that is known how (see `fused`).
        share: what this process has of each batch.
        constraints: on the outcomes of truthful reports, each with a price of its own.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        setting: Setting,
        regret: RegretMode,
        dual: Dual,
        optimizer: Optimizer,
        clip_norm: float | None,
        engine: Engine,
        fuse: bool,
        share: Share = ALONE,
        constraints: Iterable[Constraint] = (),
    ) -> None:
        super().__init__()
        self.mechanism, self.setting, self.regret, self.dual = mechanism, setting, regret, dual
        self.optimizer, self.clip_norm, self.engine, self.share = optimizer, clip_norm, engine, share
        self.constraints = list(constraints)
        self.registered = nn.ModuleList(self.constraints)
        self.fused = fused(optimizer) if fuse else None

    def controls(self, rates: Sequence[float], budgets: Sequence[float], first: int) -> Float[Tensor, "t 4"]:
        """What changes from iteration to iteration as a function of its number alone, for some iterations in a row.

        Args:
            rates: learning rate of each iteration.
            budgets: R_max of each iteration.
            first: number of the first of them, from 0.
        """
        beta1, beta2 = self.optimizer.param_groups[0].get("betas", (0.0, 0.0))
        rows = [
            (rate, budget, 1 - beta1**t, math.sqrt(1 - beta2**t))
            for t, (rate, budget) in enumerate(zip(rates, budgets, strict=True), first + 1)
        ]
        return torch.tensor(rows, dtype=torch.float64).to(next(self.mechanism.parameters()))

    def step(
        self,
        values: Float[Tensor, "b n c"],
        rows: slice | None,
        generator: torch.Generator,
        controls: Float[Tensor, "4"],
        rate: float,
        completed: int,
    ) -> Float[Tensor, "k"]:
        """Do it. Returns revenue, the sum of regret, each bidder's regret, each violation, the gradient's norm.

        Args:
            values: the batch, whole.
            rows: which rows of the fixed sample they are, or None.
            generator: for this iteration's starting points.
            controls: a row of `controls`.
            rate: the learning rate in it, for an optimiser that is not part of the function.
            completed: iterations done after this one.
        """
        begun = self.regret.begin(self.setting, values, rows, generator)
        record, misreport, gradients = self.ready(values, begun, controls)()
        self.regret.store(rows, self.share.whole(misreport))
        if self.fused is not None:
            self.fused.between(completed)
        else:
            for parameter, gradient in zip(self.mechanism.parameters(), gradients, strict=True):
                parameter.grad = gradient
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        return record

    def ready(
        self, values: Float[Tensor, "*p b n c"], begun: Begun, controls: Float[Tensor, "*p 4"]
    ) -> Callable[[], tuple[Tensor, Tensor, list[Tensor]]]:
        """An iteration, all but done: nothing has changed yet. Raises EngineFailed if the engine does not work."""
        values, begun = self.share.part((values, begun))
        if self.regret.staged:
            begun = (self.regret.find(self.mechanism, self.setting, values, begun, run=self.engine.run),)
        return self.engine.ready(Iteration.update, self, values, begun, controls)

    def count(self, completed: int) -> None:
        """Say how many iterations are done, for the optimiser's own count."""
        if self.fused is not None:
            self.fused.count_steps(completed)

    def update(
        self, values: Float[Tensor, "*p b n c"], begun: Begun, controls: Float[Tensor, "*p 4"]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The part that is compiled: the record, the misreports, and the gradients if the optimiser is not in it.

        The truthful outcome is computed once, for revenue, truthful utility and, where the search starts at the truth,
        its first gradient.
        """
        regret_mode = self.regret
        if regret_mode.starts_at_truth:
            values = values.detach().requires_grad_()
        truthful = self.mechanism.relaxed(values)
        misreport = (
            begun[0] if regret_mode.staged else regret_mode.find(self.mechanism, self.setting, values, begun, truthful)
        )
        misreport = misreport.detach().requires_grad_(regret_mode.follows)
        regret = regret_mode(self.mechanism, self.setting, values, truthful, misreport)
        violations = [constraint(values, truthful).mean(-1) for constraint in self.constraints]
        regret, mean_revenue, *violations = self.share.joint(regret, revenue(truthful).mean(-1), *violations)
        parameters = list(self.mechanism.parameters())
        loss = self.dual(regret, mean_revenue) - mean_revenue
        for constraint, violation in zip(self.constraints, violations, strict=True):
            loss = loss + constraint.penalty(violation)
        wanted = [*parameters, misreport] if regret_mode.follows else parameters
        gradients = list(torch.autograd.grad(loss.sum(), wanted, materialize_grads=True))
        if regret_mode.follows:
            misreport = regret_mode.follow(self.setting, begun, misreport.detach(), gradients.pop())
        gradients = self.share.mean(gradients)
        with torch.no_grad():
            mean_revenue, regret = mean_revenue.detach(), regret.detach()
            violations = [violation.detach() for violation in violations]
            rate, budget, *corrections = controls.unbind(-1)
            norm = norms(gradients, rate.ndim)
            if self.clip_norm is not None:
                factor = (self.clip_norm / (norm + 1e-6)).clamp_max(1)
                gradients = [gradient * _spread(factor, gradient) for gradient in gradients]
            if self.fused is not None:
                self.fused.update(parameters, gradients, rate, *corrections)
                gradients = []
            self.dual.update(regret, mean_revenue, budget)
            for constraint, violation in zip(self.constraints, violations, strict=True):
                constraint.update(violation)
        last = torch.stack([*violations, norm], -1)
        record = torch.cat([torch.stack([mean_revenue, regret.sum(-1)], -1), regret, last], -1)
        return record, misreport.detach(), gradients


class Fused(nn.Module, ABC):
    """An optimiser's step as part of the iteration, on that optimiser's own state, which is in buffers here."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__()
        (self.group,) = optimizer.param_groups
        self._steps = []
        for k, state in self.states(optimizer):
            for name, entry in state.items():
                if name != "step":
                    self.register_buffer(f"{name}_{k}", entry)
            self._steps.append(state["step"])

    @staticmethod
    @abstractmethod
    def states(optimizer: Optimizer) -> list[tuple[int, dict[str, Tensor]]]:
        """The optimiser's state of each parameter that has one, by the parameter's index; made if it is not there."""

    @abstractmethod
    def update(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], rate: Tensor, first: Tensor, second: Tensor
    ) -> None:
        """One step, in place. `first`, `second`: 1 - beta1^t and the root of 1 - beta2^t."""

    def between(self, completed: int) -> None:
        """What an iteration leaves to be done after it, not compiled."""

    def adopt(self, optimizer: Optimizer) -> None:
        """Make these buffers the optimiser's state."""
        for k, state in self.states(optimizer):
            state.update({name: getattr(self, f"{name}_{k}") for name in state if name != "step"})

    def count_steps(self, completed: int) -> None:
        """Tell the optimiser how many steps there were."""
        for step in self._steps:
            step.fill_(completed)


class FusedAdam(Fused):
    """`torch.optim.Adam` (Kingma and Ba 2015)."""

    @staticmethod
    def states(optimizer: Optimizer) -> list[tuple[int, dict[str, Tensor]]]:
        """Of every parameter."""
        found = []
        for k, parameter in enumerate(optimizer.param_groups[0]["params"]):
            if not optimizer.state[parameter]:
                moments = {name: torch.zeros_like(parameter, requires_grad=False) for name in ("exp_avg", "exp_avg_sq")}
                optimizer.state[parameter] = {"step": torch.tensor(0.0), **moments}
            found.append((k, optimizer.state[parameter]))
        return found

    def update(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], rate: Tensor, first: Tensor, second: Tensor
    ) -> None:
        """As torch does it."""
        beta1, beta2 = self.group["betas"]
        for k, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            mean, square = getattr(self, f"exp_avg_{k}"), getattr(self, f"exp_avg_sq_{k}")
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            scale = square.sqrt() / _spread(second, square) + self.group["eps"]
            parameter.sub_(_spread(rate / first, mean) * mean / scale)


class FusedSoap(Fused):
    """`truthful.optimizers.Soap`."""

    def __init__(self, optimizer: Soap) -> None:
        super().__init__(optimizer)
        self.pairs = optimizer.pairs()

    @staticmethod
    def states(optimizer: Optimizer) -> list[tuple[int, dict[str, Tensor]]]:
        """Of every weight."""
        assert isinstance(optimizer, Soap)
        optimizer.begin()
        parameters = optimizer.param_groups[0]["params"]
        return [(weight, optimizer.state[parameters[weight]]) for weight, _ in optimizer.pairs()]

    def update(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], rate: Tensor, first: Tensor, second: Tensor
    ) -> None:
        """In the current eigenbasis."""
        for weight, bias in self.pairs:
            own = [k for k in (weight, bias) if k is not None]
            state = [getattr(self, f"{name}_{weight}") for name in Soap.STATE]
            numbers = [_spread(number, state[0]) for number in (rate, first, second)]
            soap_update([parameters[k] for k in own], [gradients[k] for k in own], state, self.group, *numbers)

    def between(self, completed: int) -> None:
        """Bring the eigenvectors up to date when it is time."""
        if turn_is_due(completed, self.group["every"]):
            for weight, _ in self.pairs:
                turn([getattr(self, f"{name}_{weight}") for name in Soap.STATE], first=completed == Soap.PLAIN)


def fused(optimizer: Optimizer) -> Fused | None:
    """The optimiser as part of the iteration, if that is known how: Soap, and Adam as in the paper."""
    if isinstance(optimizer, Soap):
        return FusedSoap(optimizer)
    group = optimizer.param_groups[0]
    plain = type(optimizer) is Adam and not any(group[key] for key in ("weight_decay", "amsgrad", "maximize"))
    return FusedAdam(optimizer) if plain and len(optimizer.param_groups) == 1 else None


def norms(tensors: Sequence[Tensor], leading: int) -> Tensor:
    """Euclidean norm of all tensors together, for each index of their `leading` first axes."""
    squares = [tensor.square().flatten(leading).sum(-1) for tensor in tensors]
    return torch.stack(squares).sum(0).sqrt()


def _spread(number: Tensor, like: Tensor) -> Tensor:
    """One number a member, with as many axes as `like`."""
    return number.reshape(number.shape + (1,) * (like.ndim - number.ndim))
