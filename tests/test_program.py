import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from truthful.auction import deviation_utility, revenue, utility
from truthful.bounds import LinearProgramAuction, bracket, optimal_finite, optimal_table, upper_bound
from truthful.bounds.cells import Cells
from truthful.bounds.program import menu_revenue
from truthful.laws import Discrete
from truthful.settings import Independent, Setting, UniformBox

OPTIMA = [
    (UniformBox(1, 2, 0.0, 1.0, "additive"), (12 + 2 * math.sqrt(2)) / 27),
    (UniformBox(1, 2, 0.0, 1.0, "unit"), 2 / (3 * math.sqrt(3))),
    (UniformBox(1, 2, [4.0, 4.0], [16.0, 7.0], "additive"), 88 / 9),
    (UniformBox(1, 2, 2.0, 3.0, "unit"), 2.1331323465947305),  # Thirumulanathan et al. 2019
]

HALVES = Discrete([1.0, 2.0], [0.5, 0.5])
YAO = Independent(2, 2, HALVES, "additive")


def profiles(setting: Independent) -> tuple[Tensor, Tensor]:
    """All profiles of values, and their probabilities."""
    law = setting.laws[0][0]
    count = setting.n_bidders * setting.n_items
    values = torch.tensor(list(itertools.product(law.atoms, repeat=count)), dtype=torch.float64)
    chances = torch.tensor(list(itertools.product(law.probabilities, repeat=count)), dtype=torch.float64).prod(-1)
    return values.view(-1, setting.n_bidders, setting.n_items), chances


@pytest.mark.parametrize(("setting", "optimum"), OPTIMA)
def test_the_bracket_encloses_known_optima_and_narrows_with_the_square_of_the_cells(
    setting: UniformBox, optimum: float
) -> None:
    coarse, fine = bracket(setting, 6), bracket(setting, 12)
    for found, width in ((coarse, 0.012), (fine, 0.003)):
        assert found.lower <= optimum <= found.upper
        assert found.upper - found.lower < width * optimum


def test_a_best_known_menu_lies_in_the_bracket() -> None:
    """U[0, 4] x U[0, 3]: no theorem names the optimum, but nothing earns .1 % more than the best menu found."""
    menu = (((1.0, 0.0), 8 / 3), ((0.0, 1.0), 2.0), ((1.0, 1.0), 3.0337))
    known = menu_revenue(menu, (0.0, 0.0), (4.0, 3.0))
    assert known == pytest.approx(1.918443, abs=1e-6)
    found = bracket(UniformBox(1, 2, 0.0, [4.0, 3.0], "additive"), 15)
    assert found.lower <= known <= found.upper < 1.001 * known


def test_the_lower_end_is_what_its_menu_earns() -> None:
    setting = UniformBox(1, 2, 2.0, 3.0, "unit")
    found = bracket(setting, 10)
    values = setting.sample(400_000, torch.Generator().manual_seed(0)).double().squeeze(1)
    chances = torch.tensor([(0.0, 0.0), *(chance for chance, _ in found.menu)], dtype=torch.float64)
    prices = torch.tensor([0.0, *(price for _, price in found.menu)], dtype=torch.float64)
    assert float(chances.min()) >= 0
    assert float(chances.sum(1).max()) <= 1 + 1e-12
    paid = prices[(values @ chances.T - prices).argmax(-1)]
    assert found.lower == pytest.approx(float(paid.mean()), abs=4 * float(paid.std()) / 400_000**0.5)


@pytest.mark.parametrize(("n_items", "optimum"), [(1, 0.25), (3, 0.8755)])
def test_the_upper_end_holds_for_other_numbers_of_items(n_items: int, optimum: float) -> None:
    found = upper_bound(UniformBox(1, n_items, 0.0, 1.0, "additive"), 5)
    assert optimum <= found.upper <= 1.02 * optimum
    assert found.violation < 1e-6


def averages(chance: np.ndarray, price: np.ndarray, grid: Cells, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The unknowns for a menu, by midpoints: its average utility over all cells and faces."""
    cells, inner = grid.shape[0], 48
    parts = []
    for across in (None, 0, 1):
        share = [(np.arange(cells * inner) + 0.5) / (cells * inner)] * 2
        if across is not None:
            share[across] = np.linspace(0, 1, cells + 1)
        values = low + (high - low) * np.stack(np.meshgrid(*share, indexing="ij"), -1)
        utility = np.maximum((values @ chance.T - price).max(-1), 0)
        for axis in {0, 1} - {across}:
            shape = (*utility.shape[:axis], cells, inner, *utility.shape[axis + 1 :])
            utility = utility.reshape(shape).mean(axis + 1)
        parts.append(utility.ravel())
    return np.concatenate(parts)


@pytest.mark.parametrize("demand", ["additive", "unit"])
def test_every_truthful_auction_satisfies_the_program(demand: str) -> None:
    rng = np.random.default_rng(0)
    low, high, cells = np.array([4.0, 1.0]), np.array([7.0, 5.0]), 5
    grid = Cells(low, high, cells)
    source, target = grid.neighbours(cells)
    rows = [*zip(*grid.constraints(demand), strict=True), (grid.incentive(source, target), 0)]
    for _ in range(10):
        chance = rng.random((6, 2))
        if demand == "unit":
            chance /= np.maximum(chance.sum(1, keepdims=True), 1)
        price = chance @ low + rng.random(6) * (chance @ (high - low))
        unknowns = averages(chance, price, grid, low, high)
        for matrix, limit in rows:
            assert (matrix @ unknowns - limit).max() < 1e-3
        menu = tuple(zip(map(tuple, chance.tolist()), price.tolist(), strict=True))
        assert grid.revenue @ unknowns == pytest.approx(menu_revenue(menu, tuple(low), tuple(high)), abs=2e-3)
        assert (rows[-1][0] @ -unknowns).max() > 0.1  # a concave utility is no auction's
        assert max((matrix @ (3 * unknowns) - limit).max() for matrix, limit in rows) > 0.1  # nor are chances above 1


def test_the_covariance_of_a_step_is_the_largest_allowed() -> None:
    """A posted price inside a cell: one of the tangents is tight, and half of it would be violated."""
    grid = Cells(np.array([0.0]), np.array([1.0]), 4)
    price = 0.375  # in the middle of the second cell
    cells = np.array([0.0, 0.125**2 / 2 / 0.25, 0.25, 0.5])
    faces = np.maximum(np.linspace(0, 1, 5) - price, 0)
    unknowns = np.concatenate([cells, faces])
    slack = np.stack([limit - matrix @ unknowns for matrix, limit in zip(*grid.constraints("additive"), strict=True)])
    assert slack.min() == pytest.approx(0, abs=1e-12)
    assert grid.covariance[0] @ unknowns == pytest.approx([0, 0.25 / 8, 0, 0])
    assert (slack[3:, 1] < 1e-12).sum() == 1
    assert grid.revenue @ unknowns == pytest.approx(price * (1 - price))


@pytest.mark.parametrize(
    ("setting", "cells", "message"),
    [
        (UniformBox(2, 2, 0.0, 1.0, "additive"), 10, "one bidder and independent uniform values"),
        (YAO, 10, "one bidder and independent uniform values"),
        (UniformBox(1, 2, 0.0, 1.0, "additive"), 1, "at least 2"),
        (UniformBox(1, 3, 0.0, 1.0, "additive"), 14, "at most 2500, got 14"),
    ],
)
def test_what_the_bound_does_not_cover_is_refused(setting: Setting, cells: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        upper_bound(setting, cells)
    with pytest.raises(ValueError, match=r"two items|uniform values|cells"):
        bracket(setting, cells)


def test_yao_optimum() -> None:
    assert optimal_finite(YAO).revenue == pytest.approx(3.125, abs=1e-9)


@pytest.mark.parametrize(
    ("setting", "optimum"),
    [
        (Independent(1, 2, HALVES, "additive"), 2.25),  # the bundle at 3
        (Independent(2, 1, HALVES, "additive"), 1.5),  # reserve 2: virtual values 0 and 2
        (Independent(3, 1, Discrete([1.0, 3.0], [0.9, 0.1]), "additive"), 0.729 * 7 / 9 + 0.271 * 3),  # Myerson
        (Independent(1, 2, HALVES, "unit"), 1.5),  # either item at 2
    ],
)
def test_small_optima_by_hand(setting: Independent, optimum: float) -> None:
    assert optimal_finite(setting).revenue == pytest.approx(optimum, abs=1e-9)


def test_full_extraction_from_correlated_values() -> None:
    """One item, and bidders who always agree: each pays the other's value, so that all is extracted."""
    types = [torch.tensor([[1.0], [2.0]], dtype=torch.float64)] * 2
    agreeing = torch.tensor([[0.5, 0.0], [0.0, 0.5]], dtype=torch.float64)
    assert optimal_table(types, agreeing, "additive").revenue == pytest.approx(1.5, abs=1e-9)
    apart = torch.full((2, 2), 0.25, dtype=torch.float64)
    assert optimal_table(types, apart, "additive").revenue == pytest.approx(1.5, abs=1e-9)


@pytest.mark.parametrize("setting", [YAO, Independent(2, 2, Discrete([1.0, 2.0, 4.0], [0.5, 0.3, 0.2]), "unit")])
def test_the_auction_of_the_table_is_truthful_feasible_and_earns_the_optimum(setting: Independent) -> None:
    auction = LinearProgramAuction(setting)
    values, chances = profiles(setting)
    outcome = auction(values)
    truthful = utility(values, outcome)
    assert float(truthful.min()) >= -1e-8
    for misreport in values:
        gain = deviation_utility(auction, values, misreport.expand_as(values)) - truthful
        assert float(gain.max()) < 1e-8
    assert float(outcome.allocation.min()) >= 0
    assert float(outcome.allocation.sum(-2).max()) <= 1 + 1e-8
    if setting.demand == "unit":
        assert float(outcome.allocation.sum(-1).max()) <= 1 + 1e-8
    earned = float(chances @ revenue(outcome))
    assert auction.exact_revenue(setting) == pytest.approx(earned, abs=1e-9)
    assert earned == pytest.approx(optimal_finite(setting).revenue, abs=1e-9)
    assert auction.theorem is not None


def test_the_auction_reads_the_nearest_types_and_keeps_shapes() -> None:
    auction = LinearProgramAuction(YAO)
    bids = 1 + torch.rand(3, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    outcome, near = auction(bids), auction(bids.round())
    assert outcome.allocation.shape == bids.shape
    assert outcome.payment.dtype == torch.float32
    assert torch.equal(outcome.allocation, near.allocation)
    assert torch.equal(outcome.payment, near.payment)
    assert auction.exact_revenue(UniformBox(2, 2, 1.0, 2.0, "additive")) is None
    assert auction.exact_revenue(Independent(2, 2, Discrete([1.0, 3.0], [0.5, 0.5]), "additive")) is None
    skewed = Independent(2, 2, Discrete([1.0, 2.0], [0.25, 0.75]), "additive")
    values, chances = profiles(skewed)
    assert auction.exact_revenue(skewed) == pytest.approx(float(chances @ revenue(auction(values))), abs=1e-9)
    assert auction.exact_revenue(skewed) > 3.125


def test_large_or_wrong_programs_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 50000 incentive constraints, got"):
        optimal_finite(Independent(3, 3, Discrete([1.0, 2.0, 3.0], [0.3, 0.3, 0.4]), "additive"))
    with pytest.raises(ValueError, match="finitely many atoms"):
        optimal_finite(UniformBox(2, 2, 0.0, 1.0, "additive"))
    types = [torch.tensor([[1.0], [2.0]], dtype=torch.float64)]
    with pytest.raises(ValueError, match=r"shape \[2\] and sum 1"):
        optimal_table(types, torch.tensor([0.5, 0.6]), "additive")
    with pytest.raises(ValueError, match="additive, unit"):
        optimal_table(types, torch.tensor([0.5, 0.5]), "both")
