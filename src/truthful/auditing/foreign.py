"""Other people's auctions: any callable of bids as a Mechanism, its answers checked at every call."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from truthful.auction import Outcome
from truthful.auditing.arguments import check_fit
from truthful.mechanisms import Mechanism
from truthful.mechanisms.base import device_of
from truthful.settings import Setting
from truthful.shapes import Float

Rule = Callable[[Tensor], Any]
"""Bids (rows, n, m) to an Outcome or to (allocation, payment), as tensors or NumPy arrays."""


class ForeignMechanism(Mechanism):
    """A callable that is no Mechanism.

    It is called with bids of shape (rows, n, m), a copy that it may change. If it fails on float64, on float32, or on
    bids that ask for gradients, it is called with the other precision, or with detached bids.

    Args:
        rule: the callable; a torch module is copied and converted like any other mechanism.
        setting: gives the shape and the demand.
    """

    def __init__(self, rule: Rule, setting: Setting) -> None:
        super().__init__(setting.n_bidders, setting.n_items, setting.demand)
        self.budgeted, self.features = setting.budgeted, setting.features
        if not callable(rule):
            raise ValueError(
                f"a mechanism must be a callable of bids (rows, n, m) that returns an Outcome or (allocation, "
                f"payment), got {type(rule).__name__}"
            )
        self.rule = rule  # a module becomes a submodule
        self.precision: torch.dtype | None = None
        """The only precision that the rule takes, if it does not take both."""
        bids = setting.sample(2, torch.Generator().manual_seed(0)).to(device_of(self))
        single = _failure(copy.deepcopy(self).float(), bids.float())
        double = _failure(copy.deepcopy(self).double(), bids.double())
        if single is not None and double is not None:
            raise single
        if single is not None or double is not None:
            self.precision = torch.float32 if single is None else torch.float64

    @property
    def single_precision(self) -> bool:
        """Whether the rule does not take float64."""
        return self.precision == torch.float32

    def double(self) -> ForeignMechanism:
        """Convert a module that takes float64."""
        return self if self.single_precision else super().double()

    def float(self) -> ForeignMechanism:
        """Convert a module that takes float32."""
        return self if self.precision == torch.float64 else super().float()

    def __deepcopy__(self, memo: dict[int, Any]) -> ForeignMechanism:
        """A copy of a module; a plain callable is shared, as it may hold anything."""
        twin = copy.copy(self)
        twin._modules = dict(self._modules)
        if isinstance(self.rule, nn.Module):
            twin.rule = copy.deepcopy(self.rule, memo)
        return twin

    def forward(self, bids: Float[Tensor, "*b n c"]) -> Outcome:
        """The outcome for each profile of bids. Raises ValueError if the callable answers something else."""
        rows = bids.flatten(0, -3) if bids.ndim > 2 else bids.unsqueeze(0)
        answer = self._ask(rows if self.precision is None else rows.to(self.precision))
        pair = (answer.allocation, answer.payment) if isinstance(answer, Outcome) else answer
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            length = f" of {len(pair)}" if isinstance(pair, tuple | list) else ""
            raise ValueError(
                f"a mechanism must return an Outcome or (allocation, payment), got {type(answer).__name__}{length}"
            )
        try:
            allocation, payment = (torch.as_tensor(part).to(rows) for part in pair)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"allocation and payment must be tensors or arrays of numbers ({error})") from error
        shapes = (*rows.shape[:-1], self.n_items), rows.shape[:-1]
        for name, part, shape in zip(("allocation", "payment"), (allocation, payment), shapes, strict=True):
            if part.shape != shape:
                raise ValueError(
                    f"for bids of shape {tuple(rows.shape)} the {name} must have shape {tuple(shape)}, "
                    f"got {tuple(part.shape)}"
                )
        leading = bids.shape[:-1]
        return Outcome(allocation.reshape(*leading, self.n_items), payment.reshape(leading), self.budgeted)

    def _ask(self, bids: Tensor) -> Any:
        if bids.requires_grad:
            try:
                return self.rule(bids.clone())
            except (RuntimeError, TypeError):
                bids = bids.detach()
        return self.rule(bids.clone())


def _failure(mechanism: ForeignMechanism, bids: Tensor) -> Exception | None:
    """What the rule raises, or our objection to its answer."""
    try:
        mechanism.eval()(bids)
    except Exception as error:
        return error
    return None


def as_mechanism(mechanism: Mechanism | Rule, setting: Setting) -> Mechanism:
    """A copy of the mechanism, in evaluation mode, or a wrapped callable.

    Raises ValueError if it does not fit the setting.
    """
    if not isinstance(mechanism, Mechanism):
        return copy.deepcopy(ForeignMechanism(mechanism, setting)).eval()
    check_fit(mechanism, setting)
    return copy.deepcopy(mechanism).eval()


def has_gradient(mechanism: Mechanism, bids: Float[Tensor, "b n c"]) -> bool:
    """Whether the outcome is connected to the bids at all."""
    with torch.enable_grad():
        point = bids.detach().requires_grad_()
        outcome = mechanism(point)
        total = outcome.allocation.sum() + outcome.payment.sum()
        return total.requires_grad and torch.autograd.grad(total, point, allow_unused=True)[0] is not None
