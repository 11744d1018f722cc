"""RegretNet (Duetting et al. 2019): an allocation network and a payment network."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn

from truthful.auction import Outcome
from truthful.mechanisms.base import Mechanism, at_least_one, glorot
from truthful.mechanisms.feasible import score_shapes, split
from truthful.mechanisms.heads import outcome
from truthful.shapes import Float

EXPORTED = (nn.Tanh, nn.ReLU, nn.Sigmoid)
"""Activations that explore/rules/regretnet.js knows, by these names."""


class RegretNet(Mechanism):
    """Feasible and individually rational by construction; incentive compatible as far as it was trained to be.

    Allocation: a softmax over bidders and "nobody", and for unit demand another over items and "nothing". Payment: a
    sigmoid fraction of the reported value of the allocation (paper, section 2.3; `truthful.mechanisms.heads`).

    Args:
        n_bidders, n_items, demand: those of the setting.
        depth: number of hidden layers of each network.
        width: units in each hidden layer.
        activation: the module after each hidden layer (tanh as released, ReLU as printed).
        unit_demand_scores: 2 for one score matrix per softmax (Duetting et al.), 1 for a single matrix that feeds both
            softmaxes (as the paper's released implementation). Without effect under additive demand.
    """

    def __init__(
        self,
        n_bidders: int,
        n_items: int,
        demand: str,
        depth: int,
        width: int,
        activation: nn.Module,
        unit_demand_scores: int,
    ) -> None:
        super().__init__(n_bidders, n_items, demand)
        at_least_one(depth=depth, width=width)
        if unit_demand_scores not in (1, 2):
            raise ValueError(f"unit_demand_scores must be 1 or 2, got {unit_demand_scores!r}")
        self.activation = activation
        self.score_shapes: list[tuple[int, int]]
        """Rows and columns of the score matrix of each softmax; rows are bidders and "nobody", columns items and, for
        unit demand, "nothing"."""
        n, m = n_bidders, n_items
        single = demand == "unit" and unit_demand_scores == 1
        self.score_shapes = [(n + 1, m + 1)] if single else score_shapes(n, m, demand)
        scores = sum(rows * columns for rows, columns in self.score_shapes)
        self.allocation_network = perceptron(n * m, depth, width, activation, scores)
        self.payment_network = perceptron(n * m, depth, width, activation, n)

    def initialise(self, generator: torch.Generator) -> None:
        """Glorot uniform weights, zero biases."""
        glorot(self, generator)

    def exported(self) -> tuple[str, dict[str, Any]] | None:
        """Both networks, layer by layer."""
        activation = type(self.activation)
        if activation not in EXPORTED:
            known = ", ".join(kind.__name__ for kind in EXPORTED)
            raise ValueError(f"an activation for the browser must be one of {known}, got {activation.__name__}")
        return "regretnet", {
            "activation": activation.__name__,
            "score_shapes": self.score_shapes,
            "allocation": _layers(self.allocation_network),
            "payment": _layers(self.payment_network),
        }

    def surrogate(self) -> RegretNet:
        """The same function with sigmoids in place of tanh, three times as cheap: tanh(t) = 2 sigmoid(2 t) - 1."""
        if not isinstance(self.activation, nn.Tanh):
            return self
        twin = copy.deepcopy(self)
        twin.activation = nn.Sigmoid()
        with torch.no_grad():
            for network in (twin.allocation_network, twin.payment_network):
                layers = [layer for layer in network if isinstance(layer, nn.Linear)]
                for before, after in itertools.pairwise(layers):
                    before.weight.mul_(2)
                    before.bias.mul_(2)
                    after.bias.sub_(after.weight.sum(1))
                    after.weight.mul_(2)
                for k, layer in enumerate(network):
                    if isinstance(layer, nn.Tanh):
                        network[k] = twin.activation
        return twin

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids; bids must not be negative."""
        profiles = bids.reshape(-1, self.n_bidders * self.n_items)  # one matrix product a layer, whatever the axes
        scores = self._scores(self.allocation_network(profiles))
        found = outcome(bids.reshape(-1, *bids.shape[-2:]), scores, self.payment_network(profiles))
        return Outcome(found.allocation.reshape(bids.shape), found.payment.reshape(bids.shape[:-1]))

    def _scores(self, scores: Float[Tensor, "b s"]) -> list[Tensor]:
        """As `feasible.share` takes them: under unit demand a single matrix gives both."""
        matrices = split(scores, self.score_shapes)
        if self.demand == "additive":
            return matrices
        return [matrices[0][..., : self.n_items], matrices[-1][..., : self.n_bidders, :]]


def _layers(network: nn.Sequential) -> list[dict[str, Tensor]]:
    return [{"weight": layer.weight, "bias": layer.bias} for layer in network if isinstance(layer, nn.Linear)]


def perceptron(inputs: int, depth: int, width: int, activation: nn.Module, outputs: int) -> nn.Sequential:
    """`depth` hidden layers of `width` units, each followed by the activation."""
    sizes = [inputs, *[width] * depth]
    hidden = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), activation)]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))
