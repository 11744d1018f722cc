"""Upper bounds on the revenue of every DSIC and individually rational auction of a setting, by method."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from truthful.bounds.descent import Progress, descend
from truthful.bounds.inequality import NoBound, check_applies, items_to_compute
from truthful.bounds.network import FlowNetwork
from truthful.bounds.program import upper_bound
from truthful.bounds.tables import minimise
from truthful.errors import whole
from truthful.settings import Setting
from truthful.shapes import Float

CONFIDENCE = 0.99
"""Of the one-sided limit, even where it is the smallest of ten."""
QUANTILE = 3.58
"""Student's t at .999 for LEAST_REPLICATES: so many independent estimates, or more, are behind every error."""
LEAST_REPLICATES = 20
MOST_REPLICATES = 400
MEMORY = 0.999
"""Adam's second beta for networks."""
CHUNK = 512
"""Profiles that are evaluated together."""


@dataclass(frozen=True)
class Bound:
    """An upper bound on the revenue of every DSIC and individually rational auction."""

    limit: float
    """The bound to use: with confidence CONFIDENCE the numerical one is not above it."""
    estimate: float
    """Unbiased estimate of the right side of the inequality, by Monte Carlo; `limit` where there is nothing random."""
    standard_error: float
    samples: int
    """Random profiles behind the estimate."""
    method: str
    """In words."""


class BoundMethod(ABC):
    """A way to an upper bound."""

    @abstractmethod
    def __call__(self, setting: Setting, seed: int, progress: Progress) -> Bound:
        """The bound. Raises NoBound if the method does not apply to the setting."""


class FlowTables(BoundMethod):
    """Flows on a grid of all values' quantiles, for few values: `tables.py`.

    Args:
        largest: virtual values at once, at most: one in each cell of the grid for each bidder and each item that is not
            exchangeable, or any with unit demand. The finest grid has as many cells an axis as that allows.
        finest: cells an axis, at most.
        fewest: with fewer cells than this it does not apply.
        iterations: on each of three grids, each twice as fine as the last.
        rate: Adam's learning rate.
        samples: random profiles behind the estimate, about; at most MOST_REPLICATES a cell.
    """

    def __init__(self, largest: int, finest: int, fewest: int, iterations: int, rate: float, samples: int) -> None:
        whole = {"largest": largest, "finest": finest, "fewest": fewest, "iterations": iterations, "samples": samples}
        _check_numbers(whole, rate)
        self.largest, self.finest, self.fewest = largest, finest, fewest
        self.iterations, self.rate, self.samples = iterations, rate, samples

    def cells(self, setting: Setting) -> int:
        """Cells an axis of the finest grid."""
        share = self.largest / (setting.n_bidders * len(items_to_compute(setting)))
        return min(self.finest, int(share ** (1 / (setting.n_bidders * setting.n_items)) + 1e-9))

    def __call__(self, setting: Setting, seed: int, progress: Progress) -> Bound:
        """The bound. Raises NoBound if there are too many values for a grid."""
        check_applies(setting)
        cells = self.cells(setting)
        axes = setting.n_bidders * setting.n_items
        if cells < self.fewest:
            raise NoBound(f"a grid of {axes} values has {cells} cells an axis, fewer than {self.fewest}")
        levels = sorted({max(2, cells // 4), max(2, cells // 2), cells})
        generator = torch.Generator().manual_seed(seed)
        grid, tables = minimise(
            setting, levels, self.iterations, self.rate, generator, lambda done: progress(0.9 * done)
        )
        replicates = min(MOST_REPLICATES, max(LEAST_REPLICATES, math.ceil(self.samples / cells**axes)))
        drawn = []
        for k in range(replicates):
            drawn.append(grid.bound(tables, generator))
            progress(0.9 + 0.1 * (k + 1) / replicates)
        return _limit(torch.stack(drawn), replicates * cells**axes, f"flows in {cells} cells of each quantile")


class FlowNetworks(BoundMethod):
    """Flows from a network, for many values: `network.py`. The estimate is by randomised quasi-Monte Carlo.

    Args:
        width, pooled: of the network.
        iterations, batch, points, rate: of its training.
        final_points: for each integral of the estimate.
        samples: random profiles behind the estimate.
    """

    def __init__(
        self,
        width: int,
        pooled: int,
        iterations: int,
        batch: int,
        points: int,
        rate: float,
        final_points: int,
        samples: int,
    ) -> None:
        sizes = {"width": width, "pooled": pooled, "batch": batch, "points": points, "final_points": final_points}
        _check_numbers(sizes | {"iterations": iterations, "samples": samples}, rate)
        self.width, self.pooled, self.iterations, self.batch = width, pooled, iterations, batch
        self.points, self.rate, self.final_points, self.samples = points, rate, final_points, samples

    @torch.no_grad()
    def __call__(self, setting: Setting, seed: int, progress: Progress) -> Bound:
        """The bound. Raises NoBound with a single item, which needs no search."""
        check_applies(setting)
        shape = (setting.n_bidders, setting.n_items)
        generator = torch.Generator().manual_seed(seed)
        network = FlowNetwork(setting, self.width, self.pooled)
        network.initialise(generator)

        def estimate() -> Tensor:
            profiles = torch.rand(self.batch, *shape, generator=generator)
            return network.bound(profiles, self.points, generator).mean()

        with torch.enable_grad():
            descend(
                network.parameters(), estimate, self.iterations, self.rate, MEMORY, lambda done: progress(0.8 * done)
            )
        generator = torch.Generator().manual_seed(seed + 1)
        each = max(2, self.samples // LEAST_REPLICATES)
        drawn = []
        for k in range(LEAST_REPLICATES):
            engine = SobolEngine(setting.n_bidders * setting.n_items, scramble=True, seed=seed * LEAST_REPLICATES + k)
            profiles = engine.draw(each, dtype=torch.float64).float().clamp(2**-24, 1 - 2**-24).unflatten(1, shape)
            parts = [network.bound(part, self.final_points, generator).double() for part in profiles.split(CHUNK)]
            drawn.append(torch.cat(parts).mean())
            progress(0.8 + 0.2 * (k + 1) / LEAST_REPLICATES)
        return _limit(torch.stack(drawn), each * LEAST_REPLICATES, f"flows from a network of width {self.width}")


class LinearProgram(BoundMethod):
    """A linear program over averages of a single bidder's utility, for two uniform values: `program.py`.

    It uses convexity, which flows do not.

    Args:
        cells: in each direction.
    """

    def __init__(self, cells: int) -> None:
        _check_numbers({"cells": cells})
        self.cells = cells

    def __call__(self, setting: Setting, seed: int, progress: Progress) -> Bound:
        """The bound. Raises NoBound unless there are one bidder and two independent uniform values."""
        if setting.n_items != 2:  # it takes many minutes with three
            raise NoBound(f"the linear program is for two items, got {setting.n_items}")
        try:
            upper = upper_bound(setting, self.cells).upper
        except ValueError as reason:
            raise NoBound(str(reason)) from reason
        progress(1.0)
        return Bound(upper, upper, 0.0, 0, f"linear program over {self.cells} cells of each value")


class SingleItem(BoundMethod):
    """One item and independent values: the optimum itself (Myerson 1981)."""

    def __call__(self, setting: Setting, seed: int, progress: Progress) -> Bound:
        """The bound. Raises NoBound unless there is one item, with independent values."""
        optimum = setting.optimum
        if setting.n_items != 1 or optimum is None:
            raise NoBound("Myerson's optimum is for one item and independent values")
        progress(1.0)
        return Bound(optimum.revenue + optimum.error, optimum.revenue, 0.0, 0, "Myerson's optimum")


class Tightest(BoundMethod):
    """The smallest of the bounds of those methods that apply.

    Args:
        first: methods by name; all that apply are tried.
        otherwise: the method where none of them does.
    """

    def __init__(self, first: Mapping[str, BoundMethod], otherwise: BoundMethod) -> None:
        self.first, self.otherwise = first, otherwise

    def __call__(self, setting: Setting, seed: int, progress: Progress) -> Bound:
        """The bound. Raises NoBound if no method applies."""
        found: list[Bound] = []
        for k, method in enumerate(self.first.values()):
            with suppress(NoBound):
                found.append(method(setting, seed, lambda done, k=k: progress((k + done) / len(self.first))))
        return min(found, key=lambda bound: bound.limit) if found else self.otherwise(setting, seed, progress)


def _check_numbers(counts: Mapping[str, object], rate: object = 1.0) -> None:
    """Raise ValueError unless these are whole numbers of at least 1, and the rate is positive."""
    for name, number in counts.items():
        whole(f"bound.{name}", number, 1)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise ValueError(f"bound.rate must be a positive number, got {rate!r}")


def _limit(drawn: Float[Tensor, "r"], samples: int, method: str) -> Bound:
    """From independent unbiased estimates to a bound."""
    estimate, error = float(drawn.mean()), float(drawn.std()) / math.sqrt(len(drawn))
    return Bound(estimate + QUANTILE * error, estimate, error, samples, method)
