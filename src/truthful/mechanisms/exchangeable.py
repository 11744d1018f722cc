"""What networks are made of that treat all bidders alike, and all items: they are for any number of them."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from truthful.auction import Outcome
from truthful.mechanisms.base import Mechanism, glorot
from truthful.mechanisms.heads import outcome
from truthful.shapes import Float


class CellNetwork(Mechanism):
    """A network that computes features of every pair of a bidder and an item, a cell, with the same parameters.

    Feasible and individually rational by construction, with RegretNet's heads: the score of a cell is one of its
    features, those of "nobody" and "nothing" and the payment's logit are means of further ones over the bidders, or the
    items. `n_bidders` and `n_items` are those of the setting; the parameters have no trace of them, and `forward` takes
    bids of any number of bidders and items.
    """

    @property
    def readouts(self) -> int:
        """Features of a cell that the heads read: all but the last are of the allocation."""
        return 3 if self.demand == "additive" else 5

    @abstractmethod
    def cells(self, bids: Float[Tensor, "b n c"]) -> Float[Tensor, "b n m k"]:
        """The `readouts` of each cell. Bids may be followed by public contexts."""

    def initialise(self, generator: torch.Generator) -> None:
        """Glorot uniform weights, zero biases."""
        glorot(self, generator)

    def forward(self, bids: Float[Tensor, "*b n c"]) -> Outcome:
        """The outcome for each profile of bids; bids must not be negative."""
        profiles = bids.reshape(-1, *bids.shape[-2:])
        score, nobody, *unit, payment = self.cells(profiles).unbind(-1)
        items = score.shape[-1]
        over_bidders = torch.cat([score, nobody.mean(-2, keepdim=True)], -2)
        over_items = [torch.cat([unit[0], unit[1].mean(-1, keepdim=True)], -1)] if unit else []
        found = outcome(profiles[..., :items], [over_bidders, *over_items], payment.mean(-1))
        leading = bids.shape[:-1]
        return Outcome(found.allocation.reshape(*leading, items), found.payment.reshape(leading))


class Exchangeable(nn.Linear):
    """The affine map of features that commutes with permutations of bidders and of items (Hartford et al. 2018).

    A cell sees itself, the mean over the bidders, that over the items, and that over both: one matrix of four blocks.
    Means, not sums, so that a number of bidders or items that it was not trained on does not change the scale.

    Args:
        inputs, outputs: features of a cell.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(4 * inputs, outputs)

    def forward(self, features: Float[Tensor, "b n m i"]) -> Float[Tensor, "b n m o"]:
        """Each block is applied before its mean is spread over the cells again."""
        own, bidders, items, both = self.weight.chunk(4, -1)
        over_bidders, over_items = features.mean(-3, keepdim=True), features.mean(-2, keepdim=True)
        spread = linear(over_bidders, bidders) + linear(over_items, items)
        return linear(features, own, self.bias) + spread + linear(over_bidders.mean(-2, keepdim=True), both)
