"""Flows that are constant in the cells of a grid of quantiles: the tightest, where a grid of all values fits."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.bounds.descent import Progress, descend
from truthful.bounds.inequality import best_surplus, items_to_compute, utility_cap, values_and_densities
from truthful.settings import Setting
from truthful.shapes import Float

MEMORY = 0.99
"""Adam's second beta: a table forgets sooner than is usual, as its grid is trained for some hundred steps only."""


@dataclass(frozen=True)
class Grid:
    """A setting's quantiles in `cells` equal parts each, and which of its bidders and items share a table."""

    setting: Setting
    cells: int

    @property
    def axes(self) -> list[tuple[int, int]]:
        """The bidder and the item of each axis of a table."""
        return list(itertools.product(range(self.setting.n_bidders), range(self.setting.n_items)))

    @property
    def tables(self) -> tuple[int, int]:
        """One table for all exchangeable bidders or items, else one for each."""
        setting = self.setting
        return (
            1 if setting.exchangeable_bidders else setting.n_bidders,
            1 if setting.exchangeable_items else setting.n_items,
        )

    def weights(self, free: Float[Tensor, "r s *cells"]) -> list[list[Float[Tensor, "*cells"]]]:
        """w_ij in each cell, for all bidders and items, from free tables: shared, shifted, and with sum_j w_ij = 1.

        Exchangeable bidders (items) have the same table with their own axes first: the others follow cyclically.
        """
        n, m = self.setting.n_bidders, self.setting.n_items
        weights = []
        for i in range(n):
            scores = [self._shifted(free, i, j) for j in range(m)]
            mean = torch.stack(scores).mean(0) - 1 / m
            weights.append([score - mean for score in scores])
        return weights

    def _shifted(self, free: Tensor, bidder: int, item: int) -> Tensor:
        n, m = self.setting.n_bidders, self.setting.n_items
        rows, columns = self.tables
        i, j = (bidder if rows == 1 else 0), (item if columns == 1 else 0)
        order = [((a - i) % n) * m + (b - j) % m for a, b in self.axes]
        return free[min(bidder, rows - 1), min(item, columns - 1)].permute(order)

    def bound(
        self, free: Float[Tensor, "r s *cells"], generator: torch.Generator, rough: bool = False
    ) -> Float[Tensor, ""]:
        """The right side of the inequality, from one random point in each cell: an unbiased estimate.

        `rough` draws the points for two axes only, alike in all cells along the others: as unbiased, noisier, and the
        laws are evaluated at far fewer points.
        """
        setting, cells = self.setting, self.cells
        n, m = setting.n_bidders, setting.n_items
        columns = items_to_compute(setting)
        weights = self.weights(free)
        virtual: list[list[Tensor]] = []
        boundary = torch.zeros(()).to(free)
        for i in range(n):
            row = []
            for j in columns:
                axis, w = i * m + j, weights[i][j]
                place = self._places(axis, w, generator, rough)
                value, density = values_and_densities(setting, i, j, self._quantiles(axis, place))
                above = w.sum(axis, keepdim=True) - w.cumsum(axis)  # over the cells above this one
                row.append(value - (above + (1 - place) * w) / (cells * density))
                deficit = (-w.mean(axis)).clamp_min(0)
                boundary = boundary + self._at_lowest(deficit, axis, generator)
            virtual.append(row)
        return m / len(columns) * (best_surplus(virtual, setting.demand).mean() + boundary)

    def _at_lowest(self, deficit: Float[Tensor, "*face"], axis: int, generator: torch.Generator) -> Float[Tensor, ""]:
        """Mean of cap times deficit over the face where the quantile of `axis` is 0."""
        m = self.setting.n_items
        i, j = divmod(axis, m)
        gaps = []
        for k in (k for k in range(m) if k != j):
            face = i * m + k - (k > j)  # the dimension of that value on the face
            place = self._places(face, deficit, generator, rough=False)
            value, _ = values_and_densities(self.setting, i, k, self._quantiles(face, place))
            gaps.append(value - float(self.setting.low[i, k]))
        return (deficit * utility_cap(gaps, self.setting.demand)).mean()

    def _places(self, axis: int, like: Tensor, generator: torch.Generator, rough: bool) -> Tensor:
        """Random positions within cells, from 0 to 1."""
        drawn = {axis, (axis + 1) % like.ndim} if rough else range(like.ndim)
        shape = [self.cells if a in drawn else 1 for a in range(like.ndim)]
        return torch.rand(shape, generator=generator, dtype=like.dtype)

    def _quantiles(self, axis: int, place: Tensor) -> Tensor:
        """Quantiles at `place` in the cells along `axis`."""
        index = torch.arange(self.cells).to(place).view([-1 if a == axis else 1 for a in range(place.ndim)])
        return (index + place) / self.cells


def minimise(
    setting: Setting, levels: list[int], iterations: int, rate: float, generator: torch.Generator, progress: Progress
) -> tuple[Grid, Float[Tensor, "r s *cells"]]:
    """Tables that make the bound small: Adam on grids that get finer, each beginning with what the last one ended with.

    Args:
        setting: one to which the inequality applies.
        levels: cells an axis of each grid.
        iterations: on each grid.
        rate: Adam's learning rate at the start of a grid; it falls to 0 with a cosine.
        generator: of the points in the cells.
        progress: told which share is done.
    """

    def descend_on(grid: Grid, free: Tensor, done: float, share: float) -> None:
        def estimate() -> Tensor:
            return grid.bound(free, generator, rough=True)

        descend([free], estimate, iterations, rate, MEMORY, lambda part: progress(done + share * part))

    free: Tensor | None = None
    total, done = sum(float(cells) ** (setting.n_bidders * setting.n_items) for cells in levels), 0.0
    for cells in levels:
        grid = Grid(setting, cells)
        free = _refined(free, cells) if free is not None else torch.zeros(grid.tables + (cells,) * len(grid.axes))
        free.requires_grad_()
        share = float(cells) ** len(grid.axes) / total
        descend_on(grid, free, done, share)
        done += share
    assert free is not None
    return grid, free.detach().double()


def _refined(free: Tensor, cells: int) -> Tensor:
    """The same tables on a finer grid."""
    index = torch.arange(cells) * free.shape[-1] // cells
    free = free.detach()
    for axis in range(2, free.ndim):
        free = free.index_select(axis, index)
    return free.clone()
