"""Other people's auctions: any callable of bids as a Mechanism, its answers checked at every call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from truthful.auction import Outcome
from truthful.mechanisms import Mechanism
from truthful.settings import Setting
from truthful.shapes import Float

Rule = Callable[[Tensor], Any]
"""Bids (rows, n, m) to an Outcome or to (allocation, payment), as tensors or NumPy arrays."""


class ForeignMechanism(Mechanism):
    """A callable that is no Mechanism.

    It is called with bids of shape (rows, n, m). If it fails on float64, or on bids that ask for gradients, it is
    called with float32, or with detached bids.

    Args:
        rule: the callable; a torch module is copied and converted like any other mechanism.
        setting: gives the shape and the demand.
    """

    def __init__(self, rule: Rule, setting: Setting) -> None:
        super().__init__(**setting.shape)
        if not callable(rule):
            raise ValueError(
                f"a mechanism must be a callable of bids (rows, n, m) that returns an Outcome or (allocation, "
                f"payment), got {type(rule).__name__}"
            )
        self.rule = rule  # a module becomes a submodule
        self.single_precision = False
        bids = setting.sample(2, torch.Generator().manual_seed(0)).to(self._device())
        self(bids)  # the first call may fail: with the error of the rule, or with ours on what it answered
        try:
            self(bids.double()) if not isinstance(rule, nn.Module) else None
        except (RuntimeError, TypeError):
            self.single_precision = True

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids. Raises ValueError if the callable answers something else."""
        rows = bids.flatten(0, -3) if bids.ndim > 2 else bids.unsqueeze(0)
        asked = rows.float() if self.single_precision else rows
        answer = self._ask(asked)
        pair = (answer.allocation, answer.payment) if isinstance(answer, Outcome) else answer
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(
                f"a mechanism must return an Outcome or (allocation, payment), got {type(answer).__name__}"
            )
        allocation, payment = (torch.as_tensor(part).to(rows) for part in pair)
        for name, part, shape in (("allocation", allocation, rows.shape), ("payment", payment, rows.shape[:-1])):
            if part.shape != shape:
                raise ValueError(
                    f"for bids of shape {tuple(rows.shape)} the {name} must have shape {tuple(shape)}, "
                    f"got {tuple(part.shape)}"
                )
        return Outcome(allocation.reshape(bids.shape), payment.reshape(bids.shape[:-1]))

    def _ask(self, bids: Tensor) -> Any:
        if not bids.requires_grad:
            return self.rule(bids)
        try:
            return self.rule(bids)
        except (RuntimeError, TypeError):
            return self.rule(bids.detach())

    def _device(self) -> torch.device:
        return next((tensor.device for tensor in [*self.parameters(), *self.buffers()]), torch.device("cpu"))


def as_mechanism(mechanism: Mechanism | Rule, setting: Setting) -> Mechanism:
    """The mechanism itself, or a wrapped callable. Raises ValueError if it does not fit the setting."""
    if not isinstance(mechanism, Mechanism):
        return ForeignMechanism(mechanism, setting)
    shape, expected = (mechanism.n_bidders, mechanism.n_items), (setting.n_bidders, setting.n_items)
    if (*shape, mechanism.demand) != (*expected, setting.demand):
        raise ValueError(
            f"the mechanism is for {shape[0]} bidders x {shape[1]} items and {mechanism.demand} demand, the setting "
            f"has {expected[0]} x {expected[1]} and {setting.demand} demand"
        )
    return mechanism


def has_gradient(mechanism: Mechanism, bids: Float[Tensor, "b n m"]) -> bool:
    """Whether the outcome is connected to the bids at all."""
    with torch.enable_grad():
        outcome = mechanism(bids.detach().requires_grad_())
        return bool(outcome.allocation.requires_grad or outcome.payment.requires_grad)
