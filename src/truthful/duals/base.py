"""The price of regret."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from truthful.shapes import Float


class Dual(nn.Module, ABC):
    """Turns regret into a penalty and learns its price. All its state is in buffers."""

    multiplier: Tensor
    """The current price: a scalar, or one number a bidder."""
    uses_budget: bool
    """Whether R_max has any effect."""

    def relative_rate(self) -> float:
        """By which share of itself an iteration moves the price, if log(regret/revenue) is off its budget by 1."""
        return 0.0

    @abstractmethod
    def forward(self, regret: Float[Tensor, "*p n"], revenue: Float[Tensor, "*p"]) -> Float[Tensor, "*p"]:
        """The penalty that is added to the negative revenue."""

    @abstractmethod
    def update(self, regret: Float[Tensor, "*p n"], revenue: Float[Tensor, "*p"], budget: Float[Tensor, "*p"]) -> None:
        """Move the multiplier, once an iteration, with regret and revenue from before the network's step.

        `budget` is the current R_max.
        """
