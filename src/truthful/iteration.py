"""One primal-dual iteration, written once as a function of tensors and executed by any engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from truthful.auction import revenue
from truthful.duals import Dual
from truthful.engine import Engine
from truthful.mechanisms import Mechanism
from truthful.regret import RegretMode
from truthful.settings import Setting
from truthful.shapes import Float


class Iteration(nn.Module):
    """Search misreports; one optimiser step of the network on -revenue + penalty; the dual's update.

    The order is that of the released implementation (paper, section 2.4): the dual sees regret and revenue from before
    the network's step.

    Args:
        mechanism, setting, regret, dual: what is trained, on whom, against what, at what price.
        optimizer: of the mechanism's parameters. A plain Adam becomes part of the function where `fuse` is set.
        clip_norm: largest norm of the gradient, or None.
        engine: executes it.
        fuse: make the optimiser's step part of the function.
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
    ) -> None:
        super().__init__()
        self.mechanism, self.setting, self.regret, self.dual = mechanism, setting, regret, dual
        self.optimizer, self.clip_norm, self.engine = optimizer, clip_norm, engine
        self.adam = FusedAdam(optimizer) if fuse and FusedAdam.can_be(optimizer) else None

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
        values: Float[Tensor, "b n m"],
        rows: slice | None,
        generator: torch.Generator,
        controls: Float[Tensor, "4"],
        rate: float,
    ) -> Float[Tensor, "k"]:
        """Do it. Returns revenue, the sum of regret, each bidder's regret, the gradient's norm.

        Args:
            values: the batch.
            rows: which rows of the fixed sample they are, or None.
            generator: for this iteration's starting points.
            controls: a row of `controls`.
            rate: the learning rate in it, for an optimiser that is not part of the function.
        """
        begun = self.regret.begin(self.setting, values, rows, generator)
        record, misreport, gradients = self.ready(values, begun, controls)()
        self.regret.store(rows, misreport)
        if self.adam is None:
            for parameter, gradient in zip(self.mechanism.parameters(), gradients, strict=True):
                parameter.grad = gradient
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        return record

    def ready(
        self, values: Float[Tensor, "*p b n m"], begun: tuple[Tensor, ...], controls: Float[Tensor, "*p 4"]
    ) -> Callable[[], tuple[Tensor, Tensor, list[Tensor]]]:
        """An iteration, all but done: nothing has changed yet. Raises EngineFailed if the engine does not work."""
        if self.regret.staged:
            begun = (self.regret.find(self.mechanism, self.setting, values, begun, run=self.engine.run),)
        return self.engine.ready(Iteration.update, self, values, begun, controls)

    def count(self, completed: int) -> None:
        """Say how many iterations are done, for the optimiser's own count."""
        if self.adam is not None:
            self.adam.count_steps(completed)

    def update(
        self, values: Float[Tensor, "*p b n m"], begun: tuple[Tensor, ...], controls: Float[Tensor, "*p 4"]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The part that is compiled: the record, the misreports, and the gradients if the optimiser is not in it.

        The truthful outcome is computed once, for revenue, truthful utility and, where the search starts at the truth,
        its first gradient.
        """
        regret_mode = self.regret
        if regret_mode.starts_at_truth:
            values = values.detach().requires_grad_()
        truthful = self.mechanism(values)
        misreport = (
            begun[0] if regret_mode.staged else regret_mode.find(self.mechanism, self.setting, values, begun, truthful)
        )
        regret = regret_mode(self.mechanism, self.setting, values, truthful, misreport)
        mean_revenue = revenue(truthful).mean(-1)
        parameters = list(self.mechanism.parameters())
        loss = (self.dual(regret, mean_revenue) - mean_revenue).sum()
        gradients = list(torch.autograd.grad(loss, parameters))
        with torch.no_grad():
            mean_revenue, regret = mean_revenue.detach(), regret.detach()
            rate, budget, *corrections = controls.unbind(-1)
            norm = norms(gradients, rate.ndim)
            if self.clip_norm is not None:
                factor = (self.clip_norm / (norm + 1e-6)).clamp_max(1)
                gradients = [gradient * _spread(factor, gradient) for gradient in gradients]
            if self.adam is not None:
                self.adam.update(parameters, gradients, rate, *corrections)
                gradients = []
            self.dual.update(regret, mean_revenue, budget)
        record = torch.cat([torch.stack([mean_revenue, regret.sum(-1)], -1), regret, norm.unsqueeze(-1)], -1)
        return record, misreport.detach(), gradients


class FusedAdam(nn.Module):
    """`torch.optim.Adam`'s step as part of the iteration, on that optimiser's own state."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__()
        (group,) = optimizer.param_groups
        (self.beta1, self.beta2), self.epsilon = group["betas"], group["eps"]
        self.count = len(group["params"])
        self._steps = []
        for k, parameter in enumerate(group["params"]):
            state = optimizer.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            self.register_buffer(f"mean_{k}", state["exp_avg"])
            self.register_buffer(f"square_{k}", state["exp_avg_sq"])
            self._steps.append(state["step"])

    def adopt(self, optimizer: Optimizer) -> None:
        """Make these buffers the optimiser's state."""
        for k, parameter in enumerate(optimizer.param_groups[0]["params"]):
            optimizer.state[parameter]["exp_avg"] = getattr(self, f"mean_{k}")
            optimizer.state[parameter]["exp_avg_sq"] = getattr(self, f"square_{k}")

    @staticmethod
    def can_be(optimizer: Optimizer) -> bool:
        """Whether it is Adam as in the paper, with one group of parameters."""
        group = optimizer.param_groups[0]
        plain = type(optimizer) is Adam and not any(group[key] for key in ("weight_decay", "amsgrad", "maximize"))
        return plain and len(optimizer.param_groups) == 1

    def update(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], rate: Tensor, first: Tensor, second: Tensor
    ) -> None:
        """Kingma and Ba (2015), in place. `first`, `second`: 1 - beta1^t and the root of 1 - beta2^t."""
        for k, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            mean, square = getattr(self, f"mean_{k}"), getattr(self, f"square_{k}")
            mean.lerp_(gradient, 1 - self.beta1)
            square.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
            scale = square.sqrt() / _spread(second, square) + self.epsilon
            parameter.sub_(_spread(rate / first, mean) * mean / scale)

    def count_steps(self, completed: int) -> None:
        """Tell the optimiser how many steps there were."""
        for step in self._steps:
            step.fill_(completed)


def norms(tensors: Sequence[Tensor], leading: int) -> Tensor:
    """Euclidean norm of all tensors together, for each index of their `leading` first axes."""
    squares = [tensor.square().flatten(leading).sum(-1) for tensor in tensors]
    return torch.stack(squares).sum(0).sqrt()


def _spread(number: Tensor, like: Tensor) -> Tensor:
    """One number a member, with as many axes as `like`."""
    return number.reshape(number.shape + (1,) * (like.ndim - number.ndim))
