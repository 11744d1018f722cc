"""EquivariantNet (Rahme et al. 2021): RegretNet of exchangeable layers."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from truthful.mechanisms.base import at_least_one
from truthful.mechanisms.exchangeable import CellNetwork, Exchangeable
from truthful.shapes import Float


class EquivariantNet(CellNetwork):
    """Feasible and individually rational by construction; permuting bidders or items permutes the outcome.

    An allocation and a payment network of exchangeable layers on the matrix of bids (Rahme et al., A
    permutation-equivariant neural network architecture for auction design, AAAI 2021).

    Args:
        n_bidders, n_items, demand: those of the setting.
        depth: number of hidden layers of each network.
        width: features of a cell in each hidden layer.
        activation: the module after each hidden layer.
    """

    equivariant = True

    def __init__(
        self, n_bidders: int, n_items: int, demand: str, depth: int, width: int, activation: nn.Module
    ) -> None:
        super().__init__(n_bidders, n_items, demand)
        at_least_one(depth=depth, width=width)
        self.allocation_network = _network(depth, width, activation, self.readouts - 1)
        self.payment_network = _network(depth, width, activation, 1)

    def cells(self, bids: Float[Tensor, "b n m"]) -> Float[Tensor, "b n m k"]:
        """Of both networks."""
        features = bids.unsqueeze(-1)
        return torch.cat([self.allocation_network(features), self.payment_network(features)], -1)


def _network(depth: int, width: int, activation: nn.Module, outputs: int) -> nn.Sequential:
    sizes = [1, *[width] * depth]
    hidden = [layer for pair in itertools.pairwise(sizes) for layer in (Exchangeable(*pair), activation)]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))
