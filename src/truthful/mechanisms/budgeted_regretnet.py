"""RegretNet for bidders who cannot pay more than they have (after Feng, Narasimhan and Parkes 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from truthful.auction import Outcome
from truthful.mechanisms.base import Mechanism, at_least_one, glorot
from truthful.mechanisms.feasible import score_shapes, split
from truthful.mechanisms.heads import outcome
from truthful.mechanisms.regretnet import perceptron
from truthful.shapes import Float


class BudgetedRegretNet(Mechanism):
    """Feasible, individually rational and within reported budgets by construction; truthful as far as it was trained.

    RegretNet's two networks see what everyone reports, values and budgets, and propose an outcome. A bidder who is to
    pay more than his budget pays all of it, and his chances shrink as the payment did: any outcome within the budgets
    can be proposed and stays as it is. (A payment that is a fraction of what a bidder can pay, with chances that do not
    shrink, is as expressive; but training then mostly ends in the auction that charges nothing.)

    Args:
        n_bidders, n_items, demand: those of the setting.
        depth: number of hidden layers of each network.
        width: units in each hidden layer.
        activation: the module after each hidden layer.
        budgeted: whether the setting has private budgets; it must have.
    """

    budgeted = True

    def __init__(
        self,
        n_bidders: int,
        n_items: int,
        demand: str,
        depth: int,
        width: int,
        activation: nn.Module,
        budgeted: bool = False,
    ) -> None:
        super().__init__(n_bidders, n_items, demand)
        at_least_one(depth=depth, width=width)
        if not budgeted:
            raise ValueError(
                "BudgetedRegretNet is for settings with private budgets, got one without; use mechanism=regretnet"
            )
        n, m = n_bidders, n_items
        self.score_shapes = score_shapes(n, m, demand)
        scores = sum(rows * columns for rows, columns in self.score_shapes)
        self.allocation_network = perceptron(n * (m + 1), depth, width, activation, scores)
        self.payment_network = perceptron(n * (m + 1), depth, width, activation, n)

    def initialise(self, generator: torch.Generator) -> None:
        """Glorot uniform weights, zero biases."""
        glorot(self, generator)

    def forward(self, bids: Float[Tensor, "*b n c"]) -> Outcome:
        """The outcome for each profile of values and budgets, which must not be negative."""
        n, m = self.n_bidders, self.n_items
        profiles = bids.reshape(-1, n, m + 1)
        values, budget = profiles[..., :m], profiles[..., m]
        reports = profiles.flatten(1)
        scores = split(self.allocation_network(reports), self.score_shapes)
        asked = outcome(values, scores, self.payment_network(reports))
        poor = asked.payment > budget
        share = torch.where(poor, budget / torch.where(poor, asked.payment, 1), 1).unsqueeze(-1)
        payment, leading = torch.minimum(asked.payment, budget), bids.shape[:-1]
        allocation = (share * asked.allocation).reshape(*leading, m)
        return Outcome(allocation, payment.reshape(leading), budgeted=True)
