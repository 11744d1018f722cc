"""Optimisers that torch does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from truthful.errors import whole


class Soap(Optimizer):
    """Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, arXiv:2409.11321).

    For each weight matrix, with the bias that follows it as a further column, G G' and G' G of its gradient G are
    tracked; their eigenvectors, brought up to date now and then, are the coordinates in which Adam works. An iteration
    costs six more products of weight size a layer, and fewer iterations are needed.

    Args:
        params: weights (two axes), each followed by its bias (one axis) if it has one.
        lr: learning rate.
        betas: decay of Adam's moments.
        eps: in Adam's denominator.
        memory: decay of the tracked matrices.
        every: iterations between updates of the eigenvectors.
    """

    PLAIN = 10
    """Iterations of plain Adam before there are eigenvectors."""
    STATE = ("exp_avg", "exp_avg_sq", "left", "right", "left_basis", "right_basis")

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        betas: Sequence[float],
        eps: float,
        memory: float,
        every: int,
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"optimizer.lr must be a number of at least 0, got {lr!r}")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in (*betas, memory)):
            raise ValueError(f"optimizer.betas and memory must lie in [0, 1), got {list(betas)!r} and {memory!r}")
        whole("optimizer.every", every, 1)
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "memory": memory, "every": every})
        if len(self.param_groups) != 1:
            raise ValueError("soap takes one group of parameters")

    def pairs(self) -> list[tuple[int, int | None]]:
        """Index of each weight, and of its bias."""
        shapes = [parameter.shape for parameter in self.param_groups[0]["params"]]
        found: list[tuple[int, int | None]] = []
        for k, shape in enumerate(shapes):
            if len(shape) == 2:
                found.append((k, None))
            elif len(shape) == 1 and found and found[-1] == (k - 1, None) and shape[0] == shapes[k - 1][0]:
                found[-1] = (k - 1, k)
            else:
                raise ValueError(f"soap needs weights with two axes, each followed by its bias, got {list(shape)}")
        return found

    def begin(self) -> None:
        """Make the state that is not there yet."""
        parameters = self.param_groups[0]["params"]
        for weight, bias in self.pairs():
            parameter = parameters[weight]
            if not self.state[parameter]:
                rows, columns = parameter.shape[0], parameter.shape[1] + (bias is not None)
                sizes = ((rows, columns), (rows, columns), (rows, rows), (columns, columns))
                state = [parameter.new_zeros(size, requires_grad=False) for size in sizes]
                state += [torch.eye(size).to(parameter) for size in (rows, columns)]
                self.state[parameter] = {"step": torch.tensor(0.0), **dict(zip(self.STATE, state, strict=True))}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step with the parameters' `grad`."""
        self.begin()
        (group,) = self.param_groups
        parameters = group["params"]
        for weight, bias in self.pairs():
            state = self.state[parameters[weight]]
            state["step"] += 1
            count = int(state["step"])
            corrections = (1 - group["betas"][0] ** count, (1 - group["betas"][1] ** count) ** 0.5)
            numbers = [torch.tensor(number, dtype=torch.float64) for number in (group["lr"], *corrections)]
            own = [parameters[k] for k in (weight, bias) if k is not None]
            buffers = [state[name] for name in self.STATE]
            soap_update(own, [parameter.grad for parameter in own], buffers, group, *numbers)
            if turn_is_due(count, group["every"]):
                turn(buffers, first=count == self.PLAIN)


def soap_update(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    state: Sequence[Tensor],
    group: dict[str, Any],
    rate: Tensor,
    first: Tensor,
    second: Tensor,
) -> None:
    """One step of a weight and its bias, in place, with any leading axes.

    `state` in the order of Soap.STATE; `first`, `second`: 1 - beta1^t and the root of 1 - beta2^t; numbers have the
    leading axes and two more of size 1, or none.
    """
    mean, square, left, right, left_basis, right_basis = state
    gradient = torch.cat([g if g.ndim == mean.ndim else g.unsqueeze(-1) for g in gradients], -1)
    left.lerp_(gradient @ gradient.mT, 1 - group["memory"])
    right.lerp_(gradient.mT @ gradient, 1 - group["memory"])
    turned = left_basis.mT @ gradient @ right_basis
    beta1, beta2 = group["betas"]
    mean.lerp_(turned, 1 - beta1)
    square.mul_(beta2).addcmul_(turned, turned, value=1 - beta2)
    move = rate / first * mean / (square.sqrt() / second + group["eps"])
    change = left_basis @ move @ right_basis.mT
    columns = parameters[0].shape[-1]
    parameters[0].sub_(change[..., :columns])
    if len(parameters) > 1:
        parameters[1].sub_(change[..., columns])


def turn_is_due(completed: int, every: int) -> bool:
    """Whether the eigenvectors are brought up to date after so many iterations."""
    return completed == Soap.PLAIN or (completed > Soap.PLAIN and completed % every == 0)


@torch.no_grad()
def turn(state: Sequence[Tensor], first: bool) -> None:
    """Bring the eigenvectors up to date, in place: exactly the first time, then by one step of orthogonal iteration.

    The first moment is carried over to the new basis; the second keeps the order of its coordinates by size.
    """
    mean, square, left, right, left_basis, right_basis = state
    plain = left_basis @ mean @ right_basis.mT
    for matrix, basis, axis in ((left, left_basis, -2), (right, right_basis, -1)):
        if first:
            basis.copy_(torch.linalg.eigh(matrix.double())[1].flip(-1))
            continue
        sizes = ((basis.mT @ matrix) * basis.mT).sum(-1)
        order = sizes.argsort(-1, descending=True)
        square.copy_(square.gather(axis, order.unsqueeze(-1 if axis == -2 else -2).expand_as(square)))
        ordered = basis.gather(-1, order.unsqueeze(-2).expand_as(basis))
        basis.copy_(torch.linalg.qr(matrix @ ordered)[0])
    mean.copy_(left_basis.mT @ plain @ right_basis)
