"""Optimal revenue from one bidder with uniform values, enclosed by a linear program: see docs/linear_program.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from truthful.bounds.cells import Cells
from truthful.laws import Uniform
from truthful.settings import Setting
from truthful.settings.optimum import Menu
from truthful.settings.regions import Point, area, box_corners, menu_regions

Array = NDArray[np.float64]

MOST_CELLS = 2500
ROUNDS = 30
"""Most linear programs that are solved for one bound."""
TOLERANCE = 1e-7
"""Violation, as a share of the largest utility, from which on an incentive constraint is added."""
REACH = 2
"""Cells over which the first program has incentive constraints, in each direction."""
EQUAL = 1e-6
"""Difference of chances and of prices below which two entries of a menu are one."""


@dataclass(frozen=True)
class Bracket:
    """lower <= revenue of the optimal DSIC and IR auction <= upper."""

    lower: float
    upper: float
    menu: Menu
    """Its revenue is `lower`."""


@dataclass(frozen=True)
class Relaxation:
    """The solution of a linear program whose value bounds the revenue of every DSIC and IR auction."""

    upper: float
    """The bound: the value of a dual point, so the solver's tolerances do not matter; exact up to rounding."""
    centres: Array
    """The cells' centres, a row each."""
    utility: Array
    """The average utility in each cell."""
    chance: Array
    """The average chance of each item, a row for each cell."""
    violation: float
    """The largest violation of an incentive constraint between two cells."""


def bracket(setting: Setting, cells: int) -> Bracket:
    """Enclose the optimal revenue from one bidder with two independent uniform values, additive or unit demand.

    Above, by a linear program over averages of utility; below, by the exact revenue of the menu that its solution
    suggests. The width falls with the square of `cells`: about .04 % of revenue for 20, .015 % for 30.

    Args:
        setting: one bidder, two items, uniform laws.
        cells: cells in each direction.
    """
    if setting.n_items != 2:
        raise ValueError(f"a bracket needs two items, got {setting.n_items}")
    relaxation = upper_bound(setting, cells)
    low, high = _corner(setting.low), _corner(setting.high)
    menu = _pruned(_suggested(relaxation, setting.demand), low, high)
    return Bracket(menu_revenue(menu, low, high), relaxation.upper, menu)


def menu_revenue(menu: Menu, low: Point, high: Point) -> float:
    """The exact revenue of a menu for two items from values uniform on a box."""
    support = box_corners(low, high)
    regions = menu_regions(menu, support)
    return sum(price * area(region) for (_, price), region in zip(menu, regions, strict=False)) / area(support)


def upper_bound(setting: Setting, cells: int) -> Relaxation:
    """Bound the revenue of every DSIC and IR auction for one bidder, any number of independent uniform values.

    Incentive constraints between cells are added until none is violated; any subset of them gives a valid bound.
    """
    laws = (setting.laws or [()])[0]
    if setting.n_bidders != 1 or not setting.independent or not laws or not all(isinstance(x, Uniform) for x in laws):
        raise ValueError(
            "this bound needs one bidder and independent uniform values, got "
            f"n_bidders={setting.n_bidders} and laws {laws or 'unknown'}"
        )
    if cells < 2 or cells**setting.n_items > MOST_CELLS:
        raise ValueError(
            f"cells must be at least 2, and their {setting.n_items}-th power at most {MOST_CELLS}, got {cells}"
        )
    from scipy import sparse

    grid = Cells(setting.low[0].numpy(), setting.high[0].numpy(), cells)
    largest = float((setting.high - setting.low).sum())
    matrices, limits = grid.constraints(setting.demand)
    source, target = grid.neighbours(REACH)
    for _ in range(ROUNDS):
        matrices.append(grid.incentive(source, target))
        limits.append(np.zeros(len(source)))
        solution, upper = _solve(-grid.revenue, sparse.vstack(matrices, format="csr"), np.concatenate(limits), largest)
        utility, chance = grid.mean @ solution, np.stack([row @ solution for row in grid.chance], 1)
        violation = _violation(utility, chance, grid.centres)
        source, target = _worst(violation, TOLERANCE * largest)
        if not len(source):
            break
    return Relaxation(-upper, grid.centres, utility, chance, float(violation.max()))


def _solve(cost: Array, matrix: Any, limit: Array, largest: float) -> tuple[Array, float]:
    """Minimise cost.x subject to matrix x <= limit, 0 <= x <= largest: a solution, and a lower bound of the minimum.

    For any weights y >= 0, cost.x >= -y.limit + (cost + y matrix).x >= -y.limit + sum of min(0, .) * largest.
    """
    from scipy.optimize import linprog

    answer = linprog(cost, A_ub=matrix, b_ub=limit, bounds=(0, largest), method="highs-ipm")
    if answer.status != 0:
        raise RuntimeError(f"HiGHS did not solve the linear program: {answer.message}")
    weights = np.maximum(-answer.ineqlin.marginals, 0)
    reduced = cost + matrix.T @ weights
    return answer.x, float(-weights @ limit + np.minimum(reduced, 0).sum() * largest)


def _violation(utility: Array, chance: Array, centres: Array) -> Array:
    """What each cell (rows: its utility, chances) allows another (columns) in excess of that one's utility."""
    worth = chance @ centres.T - (chance * centres).sum(1, keepdims=True) + utility[:, None]
    excess: Array = worth - utility
    return excess


def _worst(violation: Array, tolerance: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For each cell the pair in which it is most violated as source, and that as target, where beyond tolerance."""
    every = np.arange(len(violation))
    source = np.concatenate([every, violation.argmax(0)])
    target = np.concatenate([violation.argmax(1), every])
    beyond = violation[source, target] > tolerance
    return source[beyond], target[beyond]


def _suggested(relaxation: Relaxation, demand: str) -> Menu:
    """What the cells get and pay, made feasible, each once."""
    chance = relaxation.chance.clip(0, 1)
    if demand == "unit":
        chance = chance / np.maximum(chance.sum(1, keepdims=True), 1)
    price = (relaxation.chance * relaxation.centres).sum(1) - relaxation.utility
    menu: dict[tuple[int, ...], tuple[tuple[float, ...], float]] = {}
    for entry, cost in zip(chance.tolist(), price.tolist(), strict=True):
        if cost > EQUAL:
            menu.setdefault(tuple(round(number / EQUAL) for number in (*entry, cost)), (tuple(entry), cost))
    return tuple(menu.values())


def _pruned(menu: Menu, low: Point, high: Point) -> Menu:
    """The menu without entries whose loss does not lower revenue.

    A cell across which the optimal chances jump suggests their average, an entry that the optimum does not have.
    """
    regions = menu_regions(menu, box_corners(low, high))
    menu = tuple(entry for entry, region in zip(menu, regions, strict=False) if region)
    earned, before = menu_revenue(menu, low, high), None
    while before != menu:
        before = menu
        for entry in before:
            shorter = tuple(other for other in menu if other is not entry)
            if (revenue := menu_revenue(shorter, low, high)) >= earned:
                menu, earned = shorter, revenue
    return menu


def _corner(bound: Any) -> Point:
    one, two = bound[0].tolist()
    return one, two
