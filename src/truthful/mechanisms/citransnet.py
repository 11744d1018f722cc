"""A network for auctions with contexts (after CITransNet, Duan et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from truthful.mechanisms.base import at_least_one
from truthful.mechanisms.exchangeable import CellNetwork, Exchangeable
from truthful.mechanisms.regretformer import Block
from truthful.shapes import Float


class CITransNet(CellNetwork):
    """Feasible and individually rational by construction; permuting bidders or items permutes the outcome.

    Contexts go with whom, or what, they belong to. Learned affine maps embed them; an exchangeable layer makes the
    features of a cell of its bid, its bidder's embedding, its item's and the product of these two. In each block every
    cell attends to the cells of its bidder and to those of its item, as in RegretFormer.

    Args:
        n_bidders, n_items, demand: those of the setting.
        blocks: number of them.
        width: features of a cell.
        heads: of each attention; `width` is divided among them.
        embedding: features that are made of each context.
        activation: the module after the first layer and in each block.
        features: public numbers after a bidder's bids: d of his context, and d of each item's.
    """

    equivariant = True

    def __init__(
        self,
        n_bidders: int,
        n_items: int,
        demand: str,
        blocks: int,
        width: int,
        heads: int,
        embedding: int,
        activation: nn.Module,
        features: int = 0,
    ) -> None:
        super().__init__(n_bidders, n_items, demand)
        at_least_one(blocks=blocks, width=width, heads=heads, embedding=embedding)
        if not features:
            raise ValueError("CITransNet is for settings with contexts, got one without; use mechanism=regretformer")
        self.features, self.activation = features, activation
        self.dimension = features // (1 + n_items)
        self.bidders, self.items = (nn.Linear(self.dimension, embedding) for _ in range(2))
        self.embedding = Exchangeable(1 + 3 * embedding, width)
        self.blocks = nn.Sequential(*(Block(width, heads, activation) for _ in range(blocks)))
        self.readout = nn.Linear(width, self.readouts)

    def cells(self, bids: Float[Tensor, "b n c"]) -> Float[Tensor, "b n m k"]:
        """Embedding, blocks, readout."""
        items = (bids.shape[-1] - self.dimension) // (1 + self.dimension)
        values, own, theirs = bids.split([items, self.dimension, items * self.dimension], -1)
        bidder = self.bidders(own).unsqueeze(-2).expand(*values.shape, -1)
        item = self.items(theirs.unflatten(-1, (items, self.dimension)))
        known = torch.cat([values.unsqueeze(-1), bidder, item, bidder * item], -1)
        cells: Tensor = self.readout(self.blocks(self.activation(self.embedding(known))))
        return cells
