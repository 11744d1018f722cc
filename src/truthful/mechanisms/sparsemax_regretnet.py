"""RegretNet in pieces that are linear (after Curry et al. 2020), so that an integer program can say all about it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from truthful.auction import Outcome
from truthful.mechanisms.base import Mechanism, at_least_one, glorot
from truthful.mechanisms.feasible import score_shapes, share, sparsemax, split
from truthful.mechanisms.regretnet import perceptron
from truthful.settings.base import Setting
from truthful.shapes import Float


class SparsemaxRegretNet(Mechanism):
    """Feasible and individually rational by construction; incentive compatible as far as it was trained to be.

    Allocation: that of RegretNet with a sparsemax for each softmax. Payment: min(|score|, cover), where

        cover_i = sum over j of max(0, t x_ij - max(0, t - b_ij) over the levels t)

    is linear in pieces and never above the bid for what the bidder gets: (b - t) x >= -max(0, t - b) for chances x.
    The levels t are evenly spread up to the item's largest value; up to there the cover is short of b x by at most a
    quarter of their distance. Nobody is charged more than he bids, inside the support or outside.

    Args:
        setting: gives the shape, the demand and the largest values.
        depth: number of hidden layers of each network.
        width: ReLUs in each hidden layer.
        levels: how many t there are.
    """

    kinked = True
    levels: Tensor
    """One row of them for each bidder and item."""

    def __init__(self, setting: Setting, depth: int, width: int, levels: int) -> None:
        super().__init__(**setting.shape)
        at_least_one(depth=depth, width=width, levels=levels)
        steps = torch.linspace(0, 1, levels + 1, dtype=torch.float64)[1:]
        self.register_buffer("levels", setting.high[..., None] * steps)
        self.score_shapes = score_shapes(**setting.shape)
        inputs, scores = self.n_bidders * self.n_items, sum(rows * columns for rows, columns in self.score_shapes)
        self.allocation_network = perceptron(inputs, depth, width, nn.ReLU(), scores)
        self.payment_network = perceptron(inputs, depth, width, nn.ReLU(), self.n_bidders)

    def initialise(self, generator: torch.Generator) -> None:
        """Glorot uniform weights, zero biases, but scores of payments begin near a twentieth of the largest values.

        A payment that begins on either side of the kink of |score| has to come back over it for some bids.
        """
        glorot(self, generator)
        last = self.payment_network[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_(self.levels[..., -1].sum(-1) / 20)

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids; bids must not be negative."""
        profiles = bids.reshape(-1, self.n_bidders * self.n_items)
        scores = self.allocation_network(profiles)
        allocation = share(split(scores, self.score_shapes), sparsemax).reshape(bids.shape)
        levels = self.levels.to(bids)
        covered = levels * allocation.unsqueeze(-1) - (levels - bids.unsqueeze(-1)).clamp_min(0)
        cover = covered.amax(-1).clamp_min(0).sum(-1)
        score = self.payment_network(profiles).reshape(cover.shape)
        return Outcome(allocation, torch.minimum(score.abs(), cover))
