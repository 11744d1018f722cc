import dataclasses
import itertools
import math
import re
from functools import cache

import numpy
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy import integrate, optimize, sparse, special
from torch import Tensor

from tests.conftest import CONF
from truthful.laws import Discrete, Exponential, PiecewiseUniform, Uniform
from truthful.settings import CommonFactor, Independent, Optimum, PrivateBudgets, Setting, Simplex, UniformBox
from truthful.settings.straight_jacket import polymatroid_volume, straight_jacket_prices, straight_jacket_revenue

ROOT_2 = math.sqrt(2)
GOLDEN = (1 + math.sqrt(5)) / 2

OPTIMA = {
    "uniform_1x1": (1 / 4, 1e-12),
    "uniform_2x1": (5 / 12, 1e-12),
    "uniform_3x1": (17 / 32, 1e-12),
    "uniform_5x1": (43 / 64, 1e-12),
    "exponential_3x1": (2.751693, 1e-6),
    "asymmetric_5x1": (2.2976172, 1e-7),
    "irregular_3x1": (2.374867, 1e-6),
    "uniform_1x2": ((12 + 2 * ROOT_2) / 27, 1e-12),
    "uniform_1x3": (0.8756, 5e-4),
    "uniform_1x4": (1.2190, 1e-3),
    "uniform_1x5": (1.5765, 5e-4),
    "uniform_1x6": (1.9432, 5e-4),
    "d": (88 / 9, 1e-12),
    "unit_1x2": (2 / (3 * math.sqrt(3)), 1e-12),
    "unit_shifted_1x2": (2.133132, 1e-6),
    "triangle": (2 / (3 * math.sqrt(3)), 1e-12),
    "rectangle": (1.918443, 1e-6),
    "exponential_1x2": (GOLDEN**3 * math.exp(-GOLDEN), 1e-12),
    "yao": (3.125, 1e-12),
    "budgets_1x1": (0.1933261190709, 1e-12),
}


@cache
def load(name: str) -> Setting:
    return instantiate(OmegaConf.load(CONF / "setting" / f"{name}.yaml"))


@pytest.mark.parametrize("file", sorted((CONF / "setting").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_optima_are_the_published_ones_and_there_are_no_others(file: object) -> None:
    revenue, tolerance = OPTIMA.get(file.stem, (None, 0))
    assert load(file.stem).optimal_revenue == (None if revenue is None else pytest.approx(revenue, abs=tolerance))
    first = file.read_text().splitlines()[0]
    if revenue is not None:
        assert "optimum" in first
        assert load(file.stem).optimum.source.split(",")[0].split(" ")[0] in first


def largest_virtual_value(virtual_below: object, high: float) -> float:
    """E max(0, largest virtual value) by a quadrature of its tail."""
    return integrate.quad(lambda t: 1 - virtual_below(t), 0, high, limit=400, epsabs=1e-11, epsrel=1e-11)[0]


def test_three_exponential_bidders() -> None:
    """Virtual value v - mean (1 - exp(-(high - v)/mean)); and what the cut changes, from v - mean without it."""
    lost = math.exp(-20)

    def value_at(t: float) -> float:
        return optimize.brentq(lambda v: v - 3 * (1 - math.exp(-(60 - v) / 3)) - t, 0, 60, xtol=1e-13)

    known = largest_virtual_value(lambda t: ((1 - math.exp(-value_at(t) / 3)) / (1 - lost)) ** 3, 60)
    assert load("exponential_3x1").optimal_revenue == pytest.approx(known, rel=1e-8)
    uncut = largest_virtual_value(lambda t: (1 - math.exp(-(t + 3) / 3)) ** 3, 300)
    assert uncut == pytest.approx(2.75169326, abs=1e-8)
    assert uncut - known == pytest.approx(1.39e-8, rel=0.02)


def test_three_irregular_bidders() -> None:
    """Ironed on [2.382, 4.382] to 3 - sqrt 5; 2 v - 4 below, 2 v - 8 above."""
    level, left, right = 3 - math.sqrt(5), (7 - math.sqrt(5)) / 2, (11 - math.sqrt(5)) / 2
    law = load("irregular_3x1").laws[0][0]

    def below(t: float) -> float:
        value = (t + 4) / 2 if t < level else (t + 8) / 2
        return float(law.cdf(torch.tensor(value, dtype=torch.float64))) ** 3

    assert (left, right) == pytest.approx((2.382, 4.382), abs=1e-3)
    known = sum(integrate.quad(lambda t: 1 - below(t), *ends)[0] for ends in ((0, level), (level, 8)))
    assert load("irregular_3x1").optimal_revenue == pytest.approx(known, rel=1e-8)


def test_five_different_bidders() -> None:
    kinks = [1, 2, 3, 4]
    known = integrate.quad(
        lambda t: 1 - math.prod(min(1, (t + i) / (2 * i)) for i in range(1, 6)), 0, 5, points=kinks, epsabs=1e-12
    )[0]
    assert load("asymmetric_5x1").optimal_revenue == pytest.approx(known, rel=1e-8)
    assert load("asymmetric_5x1").optimum.error == pytest.approx(known * 1e-8)


def test_a_bidder_of_any_law_is_offered_the_best_price() -> None:
    for law in (Uniform(0.2, 1.0), Exponential(1.0, 20.0), PiecewiseUniform([[0.1, 0.3], [0.8, 1.0]], [0.7, 0.3])):
        grid = torch.linspace(0, law.high, 200_001, dtype=torch.float64)
        best = (grid * (1 - law.cdf(torch.nextafter(grid, torch.zeros_like(grid))))).max()
        assert Independent(1, 1, law, "unit").optimal_revenue == pytest.approx(float(best), rel=1e-8)
    law = Discrete([1.0, 2.0, 4.0], [0.5, 0.3, 0.2])
    assert Independent(1, 1, law, "additive").optimal_revenue == pytest.approx(1.0)


def payments(menu: object, values: Tensor) -> Tensor:
    """What each value pays for its favourite entry; nothing for nothing is one."""
    allocation = torch.tensor([entry for entry, _ in menu], dtype=torch.float64)
    price = torch.tensor([0.0, *(price for _, price in menu)], dtype=torch.float64)
    worth = torch.cat([torch.zeros(len(values), 1, dtype=torch.float64), values @ allocation.T], 1) - price
    return price[worth.argmax(1)]


MENUS = [name for name in OPTIMA if load(name).n_bidders == 1 and load(name).n_items > 1]


@pytest.mark.parametrize("name", MENUS)
def test_a_menu_earns_the_optimum_and_is_the_best_of_its_kind(name: str) -> None:
    setting, size = load(name), 200_000
    optimum = setting.optimum
    unit = torch.quasirandom.SobolEngine(setting.n_items, scramble=True, seed=0).draw(size, dtype=torch.float64)
    values = setting.quantile(unit.unsqueeze(1))[:, 0]
    paid = payments(optimum.menu, values)
    assert float(paid.mean()) == pytest.approx(optimum.revenue, abs=4 * float(paid.std()) / size**0.5 / 4)  # Sobol's
    for k in range(0, len(optimum.menu), max(1, len(optimum.menu) // 4)):
        entry, price = optimum.menu[k]
        for factor in (0.97, 1.03):
            other = (*optimum.menu[:k], (entry, factor * price), *optimum.menu[k + 1 :])
            assert float(payments(other, values).mean()) < float(paid.mean()) + 5e-5 * price


SCALED = [
    lambda s: UniformBox(3, 1, 0.0, s, "unit"),
    lambda s: Independent(2, 1, Exponential(s, 30 * s), "additive"),
    lambda s: UniformBox(1, 2, 0.0, s, "additive"),
    lambda s: UniformBox(1, 4, 0.0, s, "additive"),
    lambda s: UniformBox(1, 2, [4 * s, 4 * s], [16 * s, 7 * s], "additive"),
    lambda s: UniformBox(1, 2, 0.0, s, "unit"),
    lambda s: UniformBox(1, 2, 2 * s, 3 * s, "unit"),
    lambda s: UniformBox(1, 2, 0.0, [5 * s, 3 * s], "additive"),
    lambda s: Independent(1, 3, Exponential(s, 30 * s), "additive"),
    lambda s: Simplex(1, 3, s, "additive"),
    lambda s: Independent(2, 2, Discrete([s, 2 * s], [0.5, 0.5]), "additive"),
]


@pytest.mark.parametrize("build", SCALED)
@pytest.mark.parametrize("scale", [0.7, 3.0])
def test_optima_scale_with_the_values(build: object, scale: float) -> None:
    one, other = build(1.0).optimum, build(scale).optimum
    assert other.revenue == pytest.approx(scale * one.revenue, rel=1e-7)
    assert (other.source, other.mechanism) == (one.source, one.mechanism)
    assert other.error == pytest.approx(scale * one.error, rel=1e-3)
    if one.menu is not None:
        assert [entry for entry, _ in one.menu] == [entry for entry, _ in other.menu]
        assert [price for _, price in other.menu] == pytest.approx([scale * price for _, price in one.menu])


UNIT = Uniform(0.0, 1.0)


@pytest.mark.parametrize(
    "setting",
    [
        UniformBox(1, 2, [4.0, 4.0], [16.0, 8.0], "additive"),
        UniformBox(1, 2, [4.0, 4.0], [16.0, 7.0], "unit"),
        UniformBox(1, 2, 0.1, 1.0, "additive"),
        UniformBox(1, 2, 2.0, 3.1, "unit"),
        UniformBox(1, 2, 0.0, [1.0, 2.1], "additive"),
        UniformBox(1, 2, 0.0, [1.0, 1.1], "unit"),
        UniformBox(1, 3, 0.0, [1.0, 1.0, 1.1], "additive"),
        UniformBox(1, 3, 0.0, 1.0, "unit"),
        UniformBox(1, 7, 0.0, 1.0, "additive"),
        UniformBox(2, 2, 0.0, 1.0, "additive"),
        Independent(1, 2, [UNIT, Exponential(1.0, 20.0)], "additive"),
        Independent(1, 2, Exponential(1.0, 19.0), "additive"),
        Independent(1, 2, [Exponential(1.0, 20.0), Exponential(1.1, 22.0)], "additive"),
        Independent(1, 2, Exponential(1.0, 20.0), "unit"),
        Independent(2, 2, Discrete([1.0, 2.1], [0.5, 0.5]), "additive"),
        Independent(2, 2, Discrete([1.0, 2.0], [0.4, 0.6]), "additive"),
        Independent(2, 2, Discrete([1.0, 2.0], [0.5, 0.5]), "unit"),
        Independent(2, 2, [[Discrete([1.0, 2.0], [0.5, 0.5])] * 2, [UNIT] * 2], "additive"),
        CommonFactor(2, 1, UNIT, 0.1, "additive"),
        CommonFactor(1, 2, UNIT, 0.1, "additive"),
        Simplex(1, 2, 1.0, "unit"),
        Simplex(2, 2, 1.0, "additive"),
    ],
)
def test_no_other_law_borrows_an_optimum(setting: Setting) -> None:
    assert setting.optimum is None
    assert setting.optimal_revenue is None


def test_the_optimum_follows_the_laws_and_not_the_class() -> None:
    for demand in ("additive", "unit"):
        box = UniformBox(1, 2, 0.0, 1.0, demand).optimum
        assert box == Independent(1, 2, UNIT, demand).optimum == CommonFactor(1, 2, UNIT, 0.0, demand).optimum
    assert isinstance(box, Optimum)
    assert dataclasses.replace(box, error=0.1) != box


def test_cutting_exponential_values_off_changes_less_than_is_said() -> None:
    """The bundle's own revenue from bounded values, for cuts where the change is large enough to be seen."""
    for m in (2, 3):
        optimum = Independent(1, m, Exponential(1.0, 20.0), "additive").optimum
        (_, price), *_ = optimum.menu
        assert optimum.revenue == pytest.approx(price * special.gammaincc(m, price), rel=1e-12)
        best = optimize.minimize_scalar(lambda p, m=m: -p * special.gammaincc(m, p), bounds=(0.5, 5), method="bounded")
        assert optimum.revenue == pytest.approx(-best.fun, rel=1e-10)
        assert 1e-9 < optimum.error < 2e-8
    high = 20.0
    law = Exponential(1.0, high)

    def bounded_revenue(price: float) -> float:
        nodes = torch.linspace(0, price, 200_001, dtype=torch.float64)
        below = torch.trapezoid(law.density(nodes) * law.cdf(price - nodes), nodes)
        return price * (1 - float(below))

    optimum = Independent(1, 2, law, "additive").optimum
    assert bounded_revenue(optimum.menu[0][1]) == pytest.approx(optimum.revenue, abs=optimum.error + 1e-9)


def relaxed_optimum(setting: UniformBox, cells: int, convex: bool) -> float:
    """One bidder with a uniform law: the largest E[u'(v) v - u(v)] over utilities on a grid, by linear programming.

    Utilities increase, no faster than the demand allows; convexity along some directions only, or not at all: so this
    bounds every truthful auction, but for the grid.
    """
    low, high = setting.low[0].numpy(), setting.high[0].numpy()
    number = torch.arange((cells + 1) ** 2).view(cells + 1, cells + 1)
    hat = torch.full((cells + 1,), 1 / cells, dtype=torch.float64)
    hat[[0, -1]] /= 2
    mass = -3 * torch.outer(hat, hat)
    for axis, (a, b) in enumerate(zip(low, high, strict=True)):
        mass.select(axis, -1).add_(hat * (b / (b - a)))
        mass.select(axis, 0).sub_(hat * (a / (b - a)))
    rows, limits = [], []

    def at_most(terms: list[tuple[float, Tensor]], limit: float) -> None:
        count = terms[0][1].numel()
        row = torch.arange(count).repeat(len(terms))
        column = torch.cat([points.flatten() for _, points in terms])
        entry = torch.tensor([factor for factor, _ in terms], dtype=torch.float64).repeat_interleave(count)
        rows.append(sparse.csr_matrix((entry, (row, column)), shape=(count, number.numel())))
        limits.extend([limit] * count)

    width = (high - low) / cells
    for before, after, step in ((number[:-1], number[1:], width[0]), (number[:, :-1], number[:, 1:], width[1])):
        at_most([(1, before), (-1, after)], 0)
        at_most([(1, after), (-1, before)], step)
    if setting.demand == "unit":
        at_most([(1, number[1:, 1:]), (-1, number[:-1, :-1])], width[0])
    for p, q in ((1, 0), (0, 1), (1, 1), (1, 2), (2, 1), (1, 3), (3, 1)) if convex else ():
        for grid in (number, number.flip(1)):
            n = cells + 1
            ends = grid[: n - 2 * p, : n - 2 * q], grid[2 * p :, 2 * q :]
            at_most([(2, grid[p : n - p, q : n - q]), (-1, ends[0]), (-1, ends[1])], 0)
    found = optimize.linprog(-mass.flatten().numpy(), sparse.vstack(rows), limits, bounds=(0, None), method="highs")
    return -found.fun


@pytest.mark.parametrize(
    ("name", "cells", "convex"),
    [
        ("uniform_1x2", 40, False),
        ("rectangle", 40, False),
        ("unit_1x2", 40, False),
        ("d", 24, True),
        ("unit_shifted_1x2", 24, True),
    ],
)
def test_a_linear_program_confirms_the_optimum(name: str, cells: int, convex: bool) -> None:
    """The relaxation on a grid comes as close to the optimum as a grid may."""
    setting = load(name)
    width = float((setting.high - setting.low).max())
    assert relaxed_optimum(setting, cells, convex) == pytest.approx(setting.optimal_revenue, abs=width / cells**2)


def budgeted_program(cells: int, rich: float) -> float:
    """One bidder, one item: the most that can be earned of values and budgets in the middles of `cells` cells each.

    Budgets may be understated, not overstated: fewer lies than our settings allow, so that a seller earns no less, and
    what is left is linear, as a lie never costs more than the liar has. Within a budget a value may pass for the next
    one, and at each value a budget for the next lower one: no other lie pays then, either.
    """
    middles = (numpy.arange(cells) + 0.5) / cells
    chance, paid = numpy.arange(2 * cells**2).reshape(2, cells, cells)
    lies = [
        (i, j, *to) for i, j in itertools.product(range(cells), repeat=2) for to in ((i - 1, j), (i + 1, j), (i, j - 1))
    ]
    lies = numpy.array([lie for lie in lies if 0 <= lie[2] < cells and lie[3] >= 0])
    own, told = (numpy.stack([part[lies[:, k], lies[:, k + 1]] for part in (chance, paid)]) for k in (0, 2))
    own = numpy.concatenate([own, numpy.stack([chance.ravel(), paid.ravel()])], 1)
    values = middles[numpy.concatenate([lies[:, 0], numpy.repeat(numpy.arange(cells), cells)])]
    rows, ones = numpy.arange(len(values)), numpy.ones(len(values))
    entries = [(rows, own[0], -values), (rows, own[1], ones)]
    entries += [(rows[: len(lies)], told[0], values[: len(lies)]), (rows[: len(lies)], told[1], -ones[: len(lies)])]
    row, column, number = (numpy.concatenate(part) for part in zip(*entries, strict=True))
    gains = sparse.csr_matrix((number, (row, column)))
    most = numpy.concatenate([numpy.ones(cells**2), numpy.tile(rich * middles, cells)])
    worth = numpy.repeat([0.0, -1 / cells**2], cells**2)
    found = optimize.linprog(worth, gains, numpy.zeros(len(values)), bounds=list(zip(0 * most, most, strict=True)))
    return -found.fun


@pytest.mark.parametrize("rich", [0.4, 1.0])
def test_a_linear_program_confirms_the_optimum_with_budgets(rich: float) -> None:
    """Its error is of the order of the cells, which two grids extrapolate away."""
    coarse, fine = (budgeted_program(cells, rich) for cells in (12, 24))
    setting = PrivateBudgets(UniformBox(1, 1, 0.0, 1.0, "additive"), Uniform(0.0, rich))
    assert 2 * fine - coarse == pytest.approx(setting.optimal_revenue, abs=1e-3)
    assert fine - coarse < -3e-3


def test_large_budgets_are_none() -> None:
    setting = PrivateBudgets(UniformBox(1, 1, 0.0, 3.0, "unit"), Uniform(0.0, 3e6))
    assert setting.optimal_revenue == pytest.approx(0.75, abs=1e-5)


def test_yao_by_linear_programming() -> None:
    """The best DSIC and IR auction of two bidders and two items with values in {1, 2}, over all 16 profiles."""
    types = [(1, 1), (1, 2), (2, 1), (2, 2)]
    chances, payment = [0.5, 0.5], 64  # variables: 16 profiles x 2 bidders x 2 items, then 16 x 2 payments
    rows, limits = [], []

    def utility(kind: tuple[int, int], i: int, reports: tuple[int, int]) -> dict[int, float]:
        profile = 4 * reports[0] + reports[1]
        return {4 * profile + 2 * i: kind[0], 4 * profile + 2 * i + 1: kind[1], payment + 2 * profile + i: -1.0}

    def at_most(terms: dict[int, float], limit: float) -> None:
        row = torch.zeros(96, dtype=torch.float64)
        for column, entry in terms.items():
            row[column] += entry
        rows.append(row)
        limits.append(limit)

    for a in range(4):
        for b in range(4):
            for j in range(2):
                at_most({4 * (4 * a + b) + j: 1.0, 4 * (4 * a + b) + 2 + j: 1.0}, 1)
            for i in range(2):
                truth = utility(types[(a, b)[i]], i, (a, b))
                at_most({column: -entry for column, entry in truth.items()}, 0)
                for lie in {0, 1, 2, 3} - {(a, b)[i]}:
                    told = utility(types[(a, b)[i]], i, (lie, b) if i == 0 else (a, lie))
                    at_most({**told, **{column: -entry for column, entry in truth.items()}}, 0)
    revenue = torch.cat([torch.zeros(64), torch.full((32,), -(chances[0] ** 4))])
    bounds = [(0, 1)] * 64 + [(None, None)] * 32
    found = optimize.linprog(revenue.numpy(), torch.stack(rows).numpy(), limits, bounds=bounds, method="highs")
    assert -found.fun == pytest.approx(25 / 8, abs=1e-9)


@pytest.mark.parametrize(
    ("prices", "volume"),
    [
        ([0.7], 0.7),
        ([1.0, 2.0], 1),
        ([1.0, 1.0, 1.0], 1 / 6),
        ([1.0, 1.5], 7 / 8),
        ([1.0, 2.0, 3.0, 4.0], 1),
        ([1.0, 2.0, 2.5], 1 - 1 / 48),
        ([2.0, 4.0, 1.0], 1 / 6),
        ([1.0] * 6, 1 / 720),
    ],
)
def test_volumes_of_polymatroids(prices: list[float], volume: float) -> None:
    assert polymatroid_volume(prices) == pytest.approx(volume, rel=1e-13)


@pytest.mark.parametrize("m", range(1, 8))
def test_straight_jacket_prices_and_revenue(m: int) -> None:
    """The volume condition in every dimension, and the revenue, by quasi Monte Carlo."""
    prices = straight_jacket_prices(m)
    assert prices[0] == pytest.approx(m / (m + 1), rel=1e-14)
    size = 2**16
    for r in range(1, m + 1):
        unit = torch.quasirandom.SobolEngine(r, scramble=True, seed=0).draw(size, dtype=torch.float64)
        top = unit.sort(-1, descending=True).values.cumsum(-1)
        inside = (top <= torch.tensor(prices[:r], dtype=torch.float64)).all(1).double()
        assert float(inside.mean()) == pytest.approx(1 - r / (m + 1), abs=2e-3)
    worth = torch.cat([torch.zeros(size, 1, dtype=torch.float64), top], 1)
    price = torch.tensor([0.0, *prices], dtype=torch.float64)
    paid = price[(worth - price).argmax(1)]
    assert straight_jacket_revenue(m) == pytest.approx(float(paid.mean()), abs=2e-3)


def test_straight_jacket_auctions_of_one_and_two_items_are_known() -> None:
    assert straight_jacket_prices(2) == pytest.approx((2 / 3, (4 - ROOT_2) / 3), rel=1e-14)
    assert straight_jacket_revenue(1) == pytest.approx(1 / 4, rel=1e-13)
    assert straight_jacket_revenue(2) == pytest.approx((12 + 2 * ROOT_2) / 27, rel=1e-13)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        straight_jacket_prices(0)


def test_printed_numbers_are_the_optima() -> None:
    """Numbers of six decimals or more in a yaml's first line and in its row of docs/settings.md."""
    rows = (CONF.parent / "docs" / "settings.md").read_text().splitlines()
    for file in sorted((CONF / "setting").glob("*.yaml")):
        (row,) = [row for row in rows if row.startswith(f"| `{file.stem}` |")]
        revenue = load(file.stem).optimal_revenue
        assert (revenue is None) == ("unknown" in row)
        for text in (file.read_text().splitlines()[0], row) if revenue else ():
            for number in re.findall(r"\d?\.\d{6,7}\b", text):
                assert float(number) == pytest.approx(revenue, abs=0.51 * 10 ** -len(number.partition(".")[2]))
