"""AMenuNet (Duan et al. 2023): a transformer writes the menu."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from truthful.mechanisms.affine_menu import AffineMenu, LearnedAffineMaximizer
from truthful.mechanisms.base import at_least_one, glorot
from truthful.mechanisms.feasible import score_shapes
from truthful.settings.base import Setting
from truthful.shapes import Float


class AMenuNet(LearnedAffineMaximizer):
    """Menu, boosts and weights are what a network makes of representations of bidders and items; it sees no bid.

    Without contexts a representation is a learned vector of its own for each bidder, "nobody" and each item (under unit
    demand also "nothing"). A cell for each pair goes through two affine layers and `depth` interactions, in which it
    attends to the cells of the same bidder and to those of the same item. A cell gives one score for each entry's
    allocation. The mean over all cells gives the boosts, the mean over a bidder's cells his weight.

    Args:
        setting, entries, temperature: as for every learned affine maximiser.
        depth: number of interactions.
        width: of representations and cells, a multiple of `heads`.
        heads: of each attention.
        spread: factor on the scores; the larger, the nearer the first entries are to deterministic allocations, of
            which there should be many different ones.
    """

    def __init__(
        self,
        setting: Setting,
        entries: int | None,
        temperature: float,
        depth: int,
        width: int,
        heads: int,
        spread: float,
    ) -> None:
        super().__init__(setting, entries, temperature)
        at_least_one(depth=depth, width=width, heads=heads)
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
        if not spread > 0:
            raise ValueError(f"spread must be a positive number, got {spread!r}")
        self.spread = spread
        self.shapes = score_shapes(**setting.shape)
        self.bidders = nn.Parameter(torch.zeros(self.n_bidders + 1, width))
        self.items = nn.Parameter(torch.zeros(max(columns for _, columns in self.shapes), width))
        self.first = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width))
        self.interactions = nn.Sequential(*[_Interaction(width, heads) for _ in range(depth)])
        self.scores = nn.Linear(width, self.entries * len(self.shapes))
        self.boosts = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, self.entries))
        self.tilts = nn.Linear(width, 1)

    def initialise(self, generator: torch.Generator) -> None:
        """Normal representations, Glorot uniform weights, zero biases; boosts that differ a little."""
        nn.init.normal_(self.bidders, generator=generator)
        nn.init.normal_(self.items, generator=generator)
        glorot(self, generator)
        last = self.boosts[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.1)

    def menu(self) -> AffineMenu:
        """The network's output."""
        rows, columns = len(self.bidders), len(self.items)
        pairs = [self.bidders[:, None].expand(-1, columns, -1), self.items.expand(rows, -1, -1)]
        cells = self.interactions(self.first(torch.cat(pairs, -1)))
        matrices = (self.spread * self.scores(cells)).movedim(-1, 0).split(self.entries)
        scores = [matrix[:, :r, :c] for matrix, (r, c) in zip(matrices, self.shapes, strict=True)]
        tilts = self.tilts(cells[: self.n_bidders].mean(1)).squeeze(-1)
        return self.assemble(scores, self.boosts(cells.mean((0, 1))), tilts)


class _Interaction(nn.Module):
    """Each cell, what it finds in its row and what it finds in its column become the next cell."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.rows, self.columns = _Attention(width, heads), _Attention(width, heads)
        self.mix = nn.Sequential(nn.Linear(3 * width, width), nn.ReLU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, cells: Float[Tensor, "r c w"]) -> Float[Tensor, "r c w"]:
        found = [cells, self.rows(cells), self.columns(cells.transpose(0, 1)).transpose(0, 1)]
        mixed: Tensor = self.norm(cells + self.mix(torch.cat(found, -1)))
        return mixed


class _Attention(nn.Module):
    """Of each cell to all of its row (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)

    def forward(self, cells: Float[Tensor, "r c w"]) -> Float[Tensor, "r c w"]:
        query, key, value = self.project(cells).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        near = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
        found: Tensor = (near @ value).transpose(1, 2).flatten(2)
        return found
