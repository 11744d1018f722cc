from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.conftest import CONF
from truthful.settings import Setting, UniformBox, UniformUnion

FILES = sorted((CONF / "setting").glob("*.yaml"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def file(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def setting(file: Path) -> Setting:
    return instantiate(OmegaConf.load(file))


def test_the_first_line_says_what_it_is(file: Path) -> None:
    first = file.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 20


def test_samples_lie_in_the_support_and_follow_the_generator(setting: Setting) -> None:
    draws = [setting.sample(500, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert draws[0].shape == (500, setting.n_bidders, setting.n_items)
    assert torch.equal(*draws)
    assert torch.equal(setting.project(draws[0]), draws[0])


def test_projection_is_idempotent_and_nearest(setting: Setting) -> None:
    generator = torch.Generator().manual_seed(0)
    width = (setting.high - setting.low).float()
    shape = (200, setting.n_bidders, setting.n_items)
    outside = setting.low.float() + width * (3 * torch.rand(shape, generator=generator) - 1)
    projected = setting.project(outside)
    assert torch.equal(setting.project(projected), projected)
    assert not torch.equal(projected, outside)
    others = setting.sample(200, generator)
    nearest = (projected - outside).square().sum((-1, -2))
    assert bool((nearest <= (others - outside).square().sum((-1, -2)) + 1e-6).all())


def test_projection_keeps_the_precision(setting: Setting) -> None:
    values = setting.sample(3, torch.Generator()).double()
    assert setting.project(values).dtype == torch.float64


def test_bounds_broadcast() -> None:
    rows = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert UniformBox(2, 3, rows, 9.0, "additive").low.tolist() == rows
    assert UniformBox(2, 3, [0.0, 1.0, 2.0], 9.0, "unit").low.tolist() == [[0, 1, 2]] * 2
    assert UniformBox(2, 3, [[1.0], [2.0]], 9.0, "unit").low.tolist() == [[1] * 3, [2] * 3]
    assert UniformBox(2, 3, 0.5, 9.0, "unit").low.tolist() == [[0.5] * 3] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": [0.0, 0.0, 0.0]}, "low must be a number, 2 numbers"),
        ({"high": [[1.0, 1.0]]}, "high must be a number"),
        ({"high": float("nan")}, "high must be a number"),
        ({"low": 2.0}, "low must be below high, got low=2 and high=1"),
        ({"low": -1.0}, "must not be negative"),
        ({"n_bidders": 0}, "n_bidders must be a whole number of at least 1, got 0"),
        ({"n_items": -2}, "n_items must be a whole number"),
        ({"demand": "both"}, "demand must be one of additive, unit, got 'both'"),
    ],
)
def test_a_wrong_box_is_refused(change: dict, message: str) -> None:
    arguments = {"n_bidders": 2, "n_items": 2, "low": 0.0, "high": 1.0, "demand": "additive"}
    with pytest.raises(ValueError, match=message):
        UniformBox(**{**arguments, **change})


@pytest.mark.parametrize(
    ("box", "optimum"),
    [
        (UniformBox(1, 1, 0.0, 1.0, "additive"), 1 / 4),
        (UniformBox(2, 1, 0.0, 1.0, "additive"), 5 / 12),
        (UniformBox(3, 1, 0.0, 2.0, "additive"), 2 * 17 / 32),
        (UniformBox(5, 1, 0.0, 1.0, "unit"), 43 / 64),
        (UniformBox(1, 2, 0.0, 1.0, "additive"), 0.549201),
        (UniformBox(1, 2, 0.0, 1.0, "unit"), 0.384900),
        (UniformBox(1, 2, [4.0, 4.0], [16.0, 7.0], "additive"), 88 / 9),
        (UniformBox(1, 2, [4.0, 4.0], [16.0, 8.0], "additive"), None),
        (UniformBox(2, 2, 0.0, 1.0, "additive"), None),
    ],
)
def test_known_optima(box: UniformBox, optimum: float | None) -> None:
    assert box.optimal_revenue == (None if optimum is None else pytest.approx(optimum, abs=1e-6))


def test_a_box_is_uniform_on_its_bounds() -> None:
    box = UniformBox(1, 2, [4.0, 4.0], [16.0, 7.0], "additive")
    draws = box.sample(40_000, torch.Generator().manual_seed(0))[:, 0]
    assert torch.allclose(draws.mean(0), torch.tensor([10.0, 5.5]), atol=0.06)
    assert torch.allclose(draws.var(0), torch.tensor([12.0, 0.75]), atol=0.15)


def test_a_union_is_uniform_on_its_intervals_and_not_convex() -> None:
    union = UniformUnion(1, 1, [[0.0, 0.1], [0.7, 1.0]], "additive")
    draws = union.sample(40_000, torch.Generator().manual_seed(0)).flatten()
    assert not union.convex_support
    assert float((draws <= 0.1).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert bool(((draws <= 0.1) | (draws >= 0.7)).all())
    assert float(draws[draws > 0.5].mean()) == pytest.approx(0.85, abs=0.005)
    assert union.project(torch.tensor([[[0.3]], [[0.5]]])).flatten().tolist() == pytest.approx([0.1, 0.7])


@pytest.mark.parametrize(
    "intervals", [[[0.0, 1.0]], [[0.0, 0.6], [0.5, 1.0]], [[0.0], [0.5]], [[0.7, 1.0], [0.0, 0.3]]]
)
def test_a_wrong_union_is_refused(intervals: list) -> None:
    with pytest.raises(ValueError, match="at least two disjoint pairs"):
        UniformUnion(1, 1, intervals, "additive")
