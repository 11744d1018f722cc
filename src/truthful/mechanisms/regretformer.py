"""RegretFormer (Ivanov et al. 2022): attention between items and between bidders."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from truthful.mechanisms.base import at_least_one
from truthful.mechanisms.exchangeable import CellNetwork, Exchangeable
from truthful.shapes import Float

FREQUENCIES = (1.0, 0.3, 0.1)
"""Of the positional encoding, in radians a place."""


class RegretFormer(CellNetwork):
    """Feasible and individually rational by construction; permuting bidders or items permutes the outcome.

    An exchangeable layer embeds each bid; in each block every cell attends to the cells of its bidder and to those of
    its item (Ivanov et al., Optimal-er auctions through attention, NeurIPS 2022).

    Args:
        n_bidders, n_items, demand: those of the setting.
        blocks: number of them.
        width: features of a cell.
        heads: of each attention; `width` is divided among them.
        activation: the module after the embedding and in each block.
        positional: tell bidders and items apart, by sines and cosines of their index that a learned map adds to the
            embedding. Then nothing is equivariant any more.
    """

    def __init__(
        self,
        n_bidders: int,
        n_items: int,
        demand: str,
        blocks: int,
        width: int,
        heads: int,
        activation: nn.Module,
        positional: bool,
    ) -> None:
        super().__init__(n_bidders, n_items, demand)
        at_least_one(blocks=blocks, width=width, heads=heads)
        self.equivariant = not positional
        self.activation = activation
        self.embedding = Exchangeable(1, width)
        self.position = nn.Linear(4 * len(FREQUENCIES), width, bias=False) if positional else None
        self.blocks = nn.Sequential(*(Block(width, heads, activation) for _ in range(blocks)))
        self.readout = nn.Linear(width, self.readouts)

    def cells(self, bids: Float[Tensor, "b n m"]) -> Float[Tensor, "b n m k"]:
        """Embedding, blocks, readout."""
        embedded = self.embedding(bids.unsqueeze(-1))
        if self.position is not None:
            embedded = embedded + self.position(positions(bids[0]))
        cells: Tensor = self.readout(self.blocks(self.activation(embedded)))
        return cells


class Block(nn.Module):
    """Every cell attends to its bidder's cells and to its item's; a mixture of both answers is added to it.

    Args:
        width: features of a cell.
        heads: of each attention.
        activation: of the mixture.
    """

    def __init__(self, width: int, heads: int, activation: nn.Module) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got width={width} and heads={heads}")
        self.heads, self.activation = heads, activation
        self.projection = nn.Linear(width, 6 * width)
        self.mixture = nn.Linear(2 * width, width)

    def forward(self, features: Float[Tensor, "b n m w"]) -> Float[Tensor, "b n m w"]:
        """The features after the block."""
        blocks = zip(self.projection.weight.chunk(6), self.projection.bias.chunk(6), strict=True)
        parts = [linear(features, weight, bias).unflatten(-1, (self.heads, -1)) for weight, bias in blocks]
        answers = torch.cat([_attention(*parts[:3], axis=-3), _attention(*parts[3:], axis=-4)], -1)
        mixed: Tensor = features + self.activation(self.mixture(answers))
        return mixed


def _attention(
    query: Float[Tensor, "b n m h f"], key: Float[Tensor, "b n m h f"], value: Float[Tensor, "b n m h f"], axis: int
) -> Float[Tensor, "b n m w"]:
    """Softmax attention along an axis. In plain products, of which any derivative can be differentiated again."""
    query, key, value = (one.movedim(axis, -2) for one in (query, key, value))
    weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
    answer: Tensor = weights @ value
    return answer.movedim(-2, axis).flatten(-2)


def positions(bids: Float[Tensor, "n m"]) -> Float[Tensor, "n m p"]:
    """Sines and cosines of each bidder's index and of each item's, on the device and in the precision of the bids."""
    frequencies = bids.new_tensor(FREQUENCIES)
    codes = []
    for axis, size in enumerate(bids.shape):
        angles = torch.arange(size, device=bids.device).unsqueeze(-1) * frequencies
        codes.append(torch.cat([angles.sin(), angles.cos()], -1).unsqueeze(1 - axis).expand(*bids.shape, -1))
    return torch.cat(codes, -1)
