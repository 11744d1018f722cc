"""Upper bounds: never below a known optimum, equal to it where the derivation is tight, valid for any flows."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import CONF, ROOT, Answer
from truthful.bounds import BoundMethod, FlowNetworks, FlowTables, NoBound, SingleItem, Tightest, bracket
from truthful.bounds.inequality import best_surplus, utility_cap
from truthful.bounds.network import FlowNetwork
from truthful.bounds.tables import Grid, minimise
from truthful.ceilings import find_bound, named_bounds, setting_key
from truthful.mechanisms import SecondPrice
from truthful.settings import UniformBox

SMALL = FlowTables(largest=16384, finest=16, fewest=4, iterations=200, rate=0.05, samples=1_000_000)
FINE = FlowTables(largest=32768, finest=128, fewest=8, iterations=400, rate=0.05, samples=4_000_000)
OPTIMUM_D = 88 / 9


def silent(share: float) -> None:
    assert 0 <= share <= 1


@pytest.mark.parametrize(
    ("setting", "optimum", "excess"),
    [
        (UniformBox(1, 2, 0.0, 1.0, "additive"), (12 + 2 * math.sqrt(2)) / 27, 5e-4),
        (UniformBox(1, 2, 0.0, 1.0, "unit"), 2 / (3 * math.sqrt(3)), 8e-4),
        (UniformBox(1, 2, [4.0, 4.0], [16.0, 7.0], "additive"), OPTIMUM_D, 0.045),
        (UniformBox(1, 2, 0.0, [4.0, 3.0], "additive"), 1.918443, 1e-3),
    ],
    ids=["additive", "unit", "d", "rectangle"],
)
def test_tables_come_close_to_known_optima_from_above(setting: UniformBox, optimum: float, excess: float) -> None:
    bound = FINE(setting, 0, silent)
    assert optimum <= bound.limit <= optimum + excess
    assert bound.estimate < bound.limit < bound.estimate + 1e-3 * optimum


@pytest.mark.parametrize(
    ("setting", "least", "most"),
    [
        (UniformBox(2, 2, 0.0, 1.0, "additive"), 0.8730, 0.8825),  # a symmetric AMA earns .8730
        (UniformBox(2, 2, 0.0, 1.0, "unit"), 0.7130, 0.7190),
        (UniformBox(2, 2, 0.0, [[1.0], [2.0]], "additive"), 2 * 31 / 48, 1.40),  # item by item: 31/48 each
    ],
    ids=["a", "e", "asymmetric"],
)
def test_tables_for_several_bidders(setting: UniformBox, least: float, most: float) -> None:
    bound = SMALL(setting, 0, silent)
    assert least < bound.limit < most


@pytest.mark.parametrize("demand", ["additive", "unit"])
def test_any_flows_give_a_valid_bound(demand: str) -> None:
    """Those next to the best ones, too, where there is little room."""
    setting = UniformBox(1, 2, [0.0, 0.0], [1.0, 1.2], demand)
    least = bracket(setting, 12).lower
    grid, best = minimise(setting, [8, 16], 300, 0.05, torch.Generator().manual_seed(0), silent)
    for seed, noise in enumerate((0.0, 0.1, 0.3, 1.0)):
        generator = torch.Generator().manual_seed(seed)
        free = best + noise * torch.randn(best.shape, generator=generator, dtype=torch.float64)
        drawn = torch.stack([grid.bound(free, generator) for _ in range(400)])
        assert float(drawn.mean()) > least - 3 * float(drawn.std()) / 20, noise
        assert noise or float(drawn.mean()) < 1.01 * least


@pytest.mark.parametrize("shape", [(2, 2), (1, 3), (2, 3)])
@pytest.mark.parametrize("demand", ["additive", "unit"])
def test_weights_sum_to_one_and_respect_exchangeability(shape: tuple[int, int], demand: str) -> None:
    grid = Grid(UniformBox(*shape, 0.0, 1.0, demand), 3)
    free = torch.randn(grid.tables + (3,) * len(grid.axes), generator=torch.Generator().manual_seed(0))
    weights = grid.weights(free)
    n, m = shape
    for row in weights:
        assert torch.allclose(torch.stack(row).sum(0), torch.ones(()), atol=1e-6)
    for cell in itertools.islice(itertools.product(range(3), repeat=n * m), 0, None, 7):
        moved = [cell[(a - 1) % n * m + (b - 1) % m] for a, b in grid.axes]  # everything one further, cyclically
        for i, j in grid.axes:
            assert float(weights[i][j][cell]) == pytest.approx(
                float(weights[(i + 1) % n][(j + 1) % m][tuple(moved)]), abs=1e-5
            )


def test_rough_points_are_unbiased() -> None:
    grid, free = minimise(UniformBox(2, 2, 0.0, 1.0, "unit"), [5], 100, 0.05, torch.Generator().manual_seed(0), silent)
    generator = torch.Generator().manual_seed(1)
    means = []
    for rough in (True, False):
        drawn = torch.stack([grid.bound(free, generator, rough) for _ in range(800)])
        means.append((float(drawn.mean()), float(drawn.std()) / len(drawn) ** 0.5))
    assert abs(means[0][0] - means[1][0]) < 4 * math.hypot(means[0][1], means[1][1])


@pytest.mark.parametrize("demand", ["additive", "unit"])
def test_best_surplus_is_that_of_the_best_feasible_allocation(demand: str) -> None:
    n, m = 3, 2
    virtual = torch.randn(50, n, m, generator=torch.Generator().manual_seed(0))
    best = torch.full((50,), -torch.inf)
    for owners in itertools.product(range(n + 1), repeat=m):  # n: nobody
        if demand == "unit" and any(owners.count(i) > 1 for i in range(n)):
            continue
        gained = [virtual[:, i, j] for j, i in enumerate(owners) if i < n]
        best = torch.maximum(best, torch.stack([*gained, torch.zeros(50)]).sum(0))
    found = best_surplus([[virtual[:, i, j] for j in range(m)] for i in range(n)], demand)
    assert torch.allclose(found, best)


def test_the_cap_on_utility() -> None:
    gaps = [torch.tensor([0.3, 1.0]), torch.tensor([0.5, 0.25])]
    assert utility_cap(gaps, "additive").tolist() == pytest.approx([0.8, 1.25])
    assert utility_cap(gaps, "unit").tolist() == pytest.approx([0.5, 1.0])


def test_a_network_bounds_more_values_than_a_grid_can() -> None:
    method = FlowNetworks(16, 8, iterations=250, batch=256, points=4, rate=1e-2, final_points=16, samples=10_000)
    setting = UniformBox(2, 4, 0.0, 1.0, "additive")
    bound = method(setting, 0, silent)
    assert 4 * 5 / 12 < bound.limit < 2.15  # item by item: a truthful auction; welfare is 2.667, E[max(0, max Phi)] 5/3
    assert bound.limit == method(setting, 0, silent).limit


@pytest.mark.parametrize("high", [1.0, [1.0, 2.0, 3.0]])
def test_a_network_s_weights_sum_to_one(high: float | list[float]) -> None:
    setting = UniformBox(2, 3, 0.0, high, "additive")
    network = FlowNetwork(setting, 8, 4)
    profile = torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(0))
    total = sum(network.weights(j, profile[:, :, j : j + 1], profile) for j in range(3))
    assert torch.allclose(total, torch.ones(()), atol=1e-5)


def test_what_the_derivation_does_not_cover_has_no_bound() -> None:
    node = yaml.safe_load((CONF / "setting" / "two_intervals.yaml").read_text())
    from hydra.utils import instantiate

    with pytest.raises(NoBound, match="density on an interval"):
        SMALL(instantiate(node), 0, silent)
    with pytest.raises(NoBound, match="a grid of 10 values has 2 cells an axis, fewer than 4"):
        SMALL(UniformBox(2, 5, 0.0, 1.0, "additive"), 0, silent)


def test_one_item_is_bounded_by_its_optimum() -> None:
    setting = UniformBox(2, 1, 0.0, 1.0, "additive")
    assert SingleItem()(setting, 0, silent).limit == pytest.approx(5 / 12, rel=1e-12)
    for method in (SMALL, FlowNetworks(8, 4, 1, 8, 1, 1e-2, 1, 40)):
        with pytest.raises(NoBound, match="two items or more"):
            method(setting, 0, silent)
    with pytest.raises(NoBound, match="for one item"):
        SingleItem()(UniformBox(2, 2, 0.0, 1.0, "additive"), 0, silent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations": 0}, "bound.iterations must be a whole number of at least 1, got 0"),
        ({"largest": -3}, "bound.largest must be a whole number"),
        ({"rate": -1.0}, "bound.rate must be a positive number"),
    ],
)
def test_wrong_sizes_are_refused(change: dict, message: str) -> None:
    arguments = {"largest": 64, "finest": 8, "fewest": 2, "iterations": 1, "rate": 0.1, "samples": 1}
    with pytest.raises(ValueError, match=message):
        FlowTables(**arguments | change)


class Fixed(BoundMethod):
    def __init__(self, limit: float | None) -> None:
        self.limit = limit

    def __call__(self, setting, seed, progress):
        progress(1.0)
        if self.limit is None:
            raise NoBound("not here")
        from truthful.bounds import Bound

        return Bound(self.limit, self.limit, 0.0, 0, "fixed")


def test_the_tightest_bound_that_applies_is_taken() -> None:
    setting = UniformBox(1, 2, 0.0, 1.0, "additive")
    first = {"none": Fixed(None), "loose": Fixed(2.0), "tight": Fixed(1.0)}
    assert Tightest(first, Fixed(0.5))(setting, 0, silent).limit == 1.0
    assert Tightest({"none": Fixed(None)}, Fixed(0.5))(setting, 0, silent).limit == 0.5
    with pytest.raises(NoBound, match="not here"):
        Tightest({}, Fixed(None))(setting, 0, silent)


CARDS = sorted((ROOT / "results" / "bounds").glob("*.json"))


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_committed_bounds_are_of_the_settings_they_name(path: Path) -> None:
    card = json.loads(path.read_text())
    node = yaml.safe_load((CONF / "setting" / f"{card['setting']}.yaml").read_text())
    assert card["key"] == setting_key(node)
    assert find_bound(ROOT / "results" / "bounds", node) == card["bound"]
    assert named_bounds(ROOT / "results" / "bounds")[card["setting"]] == card["bound"]["limit"]
    if card["optimal_revenue"] is not None:
        assert card["bound"]["limit"] >= card["optimal_revenue"] - 1e-9


def test_cards_are_found_by_the_setting_not_by_its_name(tmp_path: Path) -> None:
    node = {"_target_": "truthful.settings.UniformBox", "n_bidders": 2, "n_items": 2, "low": 0, "high": 1}
    bound = {"limit": 0.9}
    (tmp_path / "x.json").write_text(json.dumps({"setting": "x", "key": setting_key(node), "bound": bound}))
    (tmp_path / "broken.json").write_text("{")
    assert find_bound(tmp_path, {**node, "high": 1.0, "_convert_": "all"}) == bound
    assert find_bound(tmp_path, {**node, "high": 2.0}) is None
    assert find_bound(tmp_path / "nowhere", node) is None


def test_the_command_writes_a_card_named_after_the_setting(cli: Callable[..., Answer], tmp_path: Path) -> None:
    small = ["bound=tables", "bound.largest=256", "bound.iterations=20", "bound.samples=10000", "bound.fewest=2"]
    common = ("threads=1", f"out={tmp_path}")
    answer = cli("bounds.py", "setting=a", *common, *small)
    assert "no truthful auction earns more than" in answer.out, answer.err
    assert json.loads((tmp_path / "a.json").read_text())["bound"]["samples"] >= 10_000
    answer = cli("bounds.py", "setting=a", "setting.high=2.0", *common, *small)
    assert answer.code == 0, answer.err
    (overridden,) = tmp_path.glob("a-*.json")
    assert json.loads(overridden.read_text())["setting_overridden"], answer.err
    assert named_bounds(tmp_path).keys() == {"a"}
    answer = cli("bounds.py", "setting=two_intervals", *common)
    assert answer.code == 1
    assert answer.err.startswith("bounds.py: there is no bound for setting=two_intervals: the dual bound needs")
    assert "did you mean bound.iterations?" in cli("bounds.py", "setting=a", "bound.iteratons=3").err
    assert "seed must be a whole number of at least 0" in cli("bounds.py", "setting=a", "seed=-1").err


def test_revenue_above_a_bound_is_flagged() -> None:
    import truthful

    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    auction = SecondPrice(**setting.shape, reserve=0.5)  # earns 5/6
    assert "revenue_above_bound" in truthful.audit(auction, setting, "fast", 5000, 0, bound=0.7).flags
    assert "revenue_above_bound" not in truthful.audit(auction, setting, "fast", 5000, 0, bound=0.83).flags
    assert "revenue_above_bound" not in truthful.audit(auction, setting, "fast", 5000, 0).flags
