"""Averages of a convex utility over the cells of a box, and over their faces: the unknowns of a linear program."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SPLITS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Tangents of the largest covariance of chance and value in a cell."""


class Cells:
    """A box cut into equal cells, and sparse matrices that read from the unknowns, in rows of cells.

    The unknowns are a bidder's average utility over each cell and over each face of a cell.

    Args:
        low, high: corners of the box.
        cells: number of cells in each direction.
    """

    def __init__(self, low: Array, high: Array, cells: int) -> None:
        from scipy import sparse

        self.shape = (cells,) * len(low)
        self.width = (high - low) / cells
        steps = [start + step * (np.arange(cells) + 0.5) for start, step in zip(low, self.width, strict=True)]
        self.centres = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, len(low))
        count, faces = cells ** len(low), (cells + 1) * cells ** (len(low) - 1)
        unknowns = sparse.eye(count + len(low) * faces, format="csr")
        self.mean = unknowns[:count]
        """The average utility over each cell."""
        self.below, self.above = [], []
        """For each direction, that over each cell's lower and upper face."""
        for axis in range(len(low)):
            shape = tuple(cells + (axis == other) for other in range(len(low)))
            index = count + axis * faces + np.arange(faces).reshape(shape)
            self.below.append(unknowns[index.take(range(cells), axis).ravel()])
            self.above.append(unknowns[index.take(range(1, cells + 1), axis).ravel()])
        pairs = list(zip(self.below, self.above, self.width, strict=True))
        self.chance = [(above - below) / width for below, above, width in pairs]
        """For each item, its average chance in each cell: chances are the gradient of utility."""
        self.covariance = [(above + below) / 2 - self.mean for below, above, _ in pairs]
        """For each item, the covariance of its chance and its value in each cell, by integration by parts."""

    @property
    def revenue(self) -> Array:
        """Expected revenue, as weights of the unknowns: the average of chance.value - utility."""
        total = -self.mean
        for item, (chance, covariance) in enumerate(zip(self.chance, self.covariance, strict=True)):
            total = total + _scaled(self.centres[:, item], chance) + covariance
        return np.asarray(total.mean(0)).ravel()

    def constraints(self, demand: str) -> tuple[list[Any], list[Array]]:
        """Matrices and limits of what holds in each cell: chances in [0, 1], covariances between 0 and the largest."""
        matrices = [-chance for chance in self.chance] + [-covariance for covariance in self.covariance]
        limits = [np.zeros(len(self.centres)) for _ in matrices]
        totals = self.chance if demand == "additive" else [sum(self.chance[1:], self.chance[0])]
        matrices += totals
        limits += [np.ones(len(self.centres)) for _ in totals]
        for item, split in itertools.product(range(len(self.width)), SPLITS):
            chance, half = self.chance[item], self.width[item] / 2
            before, _ = self._shift(item, -1)
            after, beyond = self._shift(item, 1)
            rises = split**2 * (chance - before @ chance) + (1 - split) ** 2 * (after @ chance - chance)
            matrices.append(self.covariance[item] - half * rises)
            limits.append(half * (1 - split) ** 2 * beyond)  # past the last cell the chance may rise to 1
        return matrices, limits

    def incentive(self, source: NDArray[np.intp], target: NDArray[np.intp]) -> Any:
        """Rows whose product with the unknowns must not be positive: translated to `target`, `source` gains nothing."""
        move = self.centres[target] - self.centres[source]
        gained = self.mean[source] - self.mean[target]
        for item, chance in enumerate(self.chance):
            gained = gained + _scaled(move[:, item], chance[source])
        return gained

    def neighbours(self, reach: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Ordered pairs of cells at most `reach` apart in each direction, with none between them."""
        index = np.stack(np.unravel_index(np.arange(len(self.centres)), self.shape), 1)
        sources, targets = [], []
        for offset in itertools.product(range(-reach, reach + 1), repeat=len(self.shape)):
            moved = index + offset
            inside = ((moved >= 0) & (moved < self.shape)).all(1)
            if math.gcd(*offset) == 1:
                sources.append(np.flatnonzero(inside))
                targets.append(np.ravel_multi_index(tuple(moved[inside].T), self.shape))
        return np.concatenate(sources), np.concatenate(targets)

    def _shift(self, axis: int, step: int) -> tuple[Any, Array]:
        """The matrix that reads, for each cell, the cell `step` along `axis`, 0 off the box, and where it is off."""
        from scipy import sparse

        parts = [sparse.eye(size, k=step if axis == other else 0) for other, size in enumerate(self.shape)]
        matrix = parts[0]
        for part in parts[1:]:
            matrix = sparse.kron(matrix, part)
        return matrix.tocsr(), 1 - np.asarray(matrix.sum(1)).ravel()


def _scaled(factors: Array, matrix: Any) -> Any:
    from scipy import sparse

    return sparse.diags(factors) @ matrix
