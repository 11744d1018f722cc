"""What a constraint is: a violation of each profile, what is tolerated of it, and its price."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from truthful.auction import Outcome
from truthful.duals import Dual
from truthful.settings import Setting
from truthful.shapes import Float


class Constraint(nn.Module, ABC):
    """A condition on the outcomes of truthful reports: the mean of its violation over profiles is at most `tolerance`.

    It has a dual of its own, any: the violation takes the place of an only bidder's
    regret, 1 that of revenue, the tolerance that of the budget. All state is in buffers.

    Args:
        setting: whose outcomes it is about.
        tolerance: largest mean violation, above 0.
        dual: makes the price of violations, from `n_bidders`.

    Raises:
        ValueError: an argument that makes no sense; messages begin with its name.
    """

    tolerance: Tensor

    def __init__(self, setting: Setting, tolerance: float, dual: Callable[..., Dual]) -> None:
        super().__init__()
        if not 0 < tolerance < math.inf:
            raise ValueError(f"tolerance must be a number above 0, got {tolerance!r}")
        self.n_bidders, self.n_items = setting.n_bidders, setting.n_items
        self.dual = dual(n_bidders=1)
        self.register_buffer("tolerance", torch.tensor(tolerance, dtype=torch.float64), persistent=False)

    @abstractmethod
    def forward(self, values: Float[Tensor, "*b n c"], outcome: Outcome) -> Float[Tensor, "*b"]:
        """How far the outcome for each profile is from what is asked for: at least 0, differentiable in the outcome."""

    def prepare(self) -> None:
        """Learn what has to be learned before training, once; a checkpoint has it.

        Raises:
            ValueError: what there is to learn from is missing or wrong.
        """

    @property
    def learned(self) -> dict[str, float]:
        """What a result should say of what was learned."""
        return {}

    def penalty(self, violation: Float[Tensor, "*p"]) -> Float[Tensor, "*p"]:
        """What a mean violation costs in training."""
        penalty: Tensor = self.dual(violation.unsqueeze(-1), torch.ones_like(violation))
        return penalty

    def update(self, violation: Float[Tensor, "*p"]) -> None:
        """Move the multiplier, once an iteration, with the mean violation from before the network's step."""
        tolerance = self.tolerance.to(violation).expand_as(violation)
        self.dual.update(violation.unsqueeze(-1), torch.ones_like(violation), tolerance)


def share(name: str, number: float, most: float = 1.0, why: str = "") -> float:
    """A number above 0 and at most `most`, or a ValueError that names it, and says `why`."""
    if isinstance(number, bool) or not 0 < number <= most:
        raise ValueError(f"{name} must be above 0 and at most {most:g}{why}, got {number!r}")
    return number
