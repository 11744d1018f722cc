import itertools
import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy import stats

from tests.conftest import CONF, network, regret_mode
from truthful.auction import deviation_utility, utility
from truthful.auditing import audit
from truthful.console import describe
from truthful.laws import Discrete, Exponential, PiecewiseUniform, Uniform
from truthful.settings import (
    CommonFactor,
    Empirical,
    Independent,
    PrivateBudgets,
    Setting,
    Simplex,
    UniformBox,
)
from truthful.streams import Stream, generator

FILES = sorted((CONF / "setting").glob("*.yaml"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def file(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def setting(file: Path) -> Setting:
    return load(file.stem)


def load(name: str) -> Setting:
    return instantiate(OmegaConf.load(CONF / "setting" / f"{name}.yaml"))


def test_the_first_line_says_what_it_is(file: Path) -> None:
    first = file.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 20


def test_samples_lie_in_the_support_and_follow_the_generator(setting: Setting) -> None:
    draws = [setting.sample(500, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert draws[0].shape == (500, setting.n_bidders, setting.reported + setting.features)
    assert torch.equal(*draws)
    told = setting.reports(draws[0])
    assert torch.equal(setting.project(told), told)


def test_projection_is_idempotent_and_nearest(setting: Setting) -> None:
    generator = torch.Generator().manual_seed(0)
    width = (setting.high - setting.low).float()
    shape = (200, setting.n_bidders, setting.reported)
    outside = setting.low.float() + width * (3 * torch.rand(shape, generator=generator) - 1)
    projected = setting.project(outside)
    assert torch.equal(setting.project(projected), projected)
    assert not torch.equal(projected, outside)
    others = setting.reports(setting.sample(200, generator))
    nearest = (projected - outside).square().sum((-1, -2))
    assert bool((nearest <= (others - outside).square().sum((-1, -2)) + 1e-6).all())


def test_projection_keeps_the_precision(setting: Setting) -> None:
    values = setting.reports(setting.sample(3, torch.Generator())).double()
    assert setting.project(values).dtype == torch.float64


def test_uniform_numbers_become_values(setting: Setting) -> None:
    """At the ends of the unit cube, too, and in either precision."""
    if isinstance(setting, Empirical) or setting.features:
        with pytest.raises(ValueError, match="not known as a function of uniform numbers"):
            setting.quantile(torch.rand(1, setting.n_bidders, setting.reported))
        return
    for dtype in (torch.float32, torch.float64):
        unit = torch.rand(
            300, setting.n_bidders, setting.reported, generator=torch.Generator().manual_seed(4), dtype=dtype
        )
        unit[:2] = torch.tensor([0.0, 1.0]).view(2, 1, 1)
        values = setting.quantile(unit)
        assert values.dtype == dtype
        assert torch.equal(setting.project(values), values)
        assert bool((values >= setting.low.to(dtype)).all())
        assert bool((values <= setting.high.to(dtype)).all())


def test_every_value_has_its_law(setting: Setting) -> None:
    """Kolmogorov and Smirnov's distance, below what 1 of 10,000 samples exceeds."""
    size = 4000
    if setting.laws is None:
        assert isinstance(setting, Simplex | Empirical | PrivateBudgets) or setting.features
        return
    values = setting.sample(size, torch.Generator().manual_seed(1)).double()
    for i, j in list(itertools.product(range(setting.n_bidders), range(setting.n_items)))[:6]:
        law, drawn = setting.laws[i][j], values[:, i, j].sort().values
        if isinstance(law, Discrete):
            share = [float((drawn == atom).double().mean()) for atom in law.atoms]
            assert share == pytest.approx(law.probabilities, abs=4 * (0.25 / size) ** 0.5)
            continue
        rank = torch.arange(size + 1, dtype=torch.float64) / size
        chance = law.cdf(drawn)
        assert float(torch.maximum(rank[1:] - chance, chance - rank[:-1]).max()) < 2.23 / size**0.5


def test_the_joint_density_integrates_to_one(setting: Setting) -> None:
    """Over random points of the box, within four standard errors."""
    points = torch.rand(
        100_000, setting.n_bidders, setting.reported, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    width = setting.high - setting.low
    density = setting.density(setting.low + width * points)
    if density is None and (isinstance(setting, Empirical) or setting.features):
        return
    if density is None:
        assert setting.laws is not None
        assert all(isinstance(law, Discrete) for row in setting.laws for law in row)
        return
    assert density.dtype == torch.float64
    assert setting.density(setting.high[None] + 1).tolist() == [0]
    if width.numel() > 4:  # too many dimensions for so few points
        return
    mass = density * width.prod()
    assert float(mass.mean()) == pytest.approx(1, abs=4 * float(mass.std()) / 100_000**0.5 + 1e-12)


def test_exchangeable_bidders_and_items_are_those_whose_permutation_changes_nothing(setting: Setting) -> None:
    values = setting.reports(setting.sample(50, torch.Generator().manual_seed(6))).double()
    for axis, flag in ((-2, setting.exchangeable_bidders), (-1, setting.exchangeable_items)):
        own, budget = values.split([setting.n_items, setting.reported - setting.n_items], -1)
        permuted = torch.cat([own.roll(1, -1), budget], -1) if axis == -1 else values.roll(1, -2)
        before, after = setting.density(values), setting.density(permuted)
        if before is None:
            assert torch.equal(setting.project(permuted), permuted) == flag
        else:
            assert torch.allclose(before, after) == flag
        if setting.laws is not None:
            rows = setting.laws if axis == -2 else tuple(zip(*setting.laws, strict=True))
            assert (len(set(rows)) == 1) == flag


def test_independent_values_are_uncorrelated_and_others_are_not(setting: Setting) -> None:
    size = 4000
    values = setting.reports(setting.sample(size, torch.Generator().manual_seed(7))).flatten(1)[:, :6]
    if values.shape[1] == 1:
        assert setting.independent
        return
    apart = torch.corrcoef(values.T).fill_diagonal_(0).abs().max()
    uncorrelated = setting.independent or setting.budgeted or setting.features > 0
    assert (float(apart) < 5 / size**0.5) == uncorrelated


NOT_CONVEX = {"yao", "two_intervals"}


def test_local_modes_refuse_supports_with_gaps(file: Path, setting: Setting) -> None:
    assert setting.convex_support == (file.stem not in NOT_CONVEX)
    mode = regret_mode("local")
    if setting.budgeted:
        with pytest.raises(ValueError, match="with private budgets local incentive compatibility is not known"):
            mode.prepare(setting, None, torch.Generator())
    elif setting.convex_support:
        mode.prepare(setting, None, torch.Generator())
    else:
        with pytest.raises(ValueError, match="this setting's support is not convex"):
            mode.prepare(setting, None, torch.Generator())


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


def test_a_box_is_uniform_on_its_bounds() -> None:
    box = UniformBox(1, 2, [4.0, 4.0], [16.0, 7.0], "additive")
    draws = box.sample(40_000, torch.Generator().manual_seed(0))[:, 0]
    assert torch.allclose(draws.mean(0), torch.tensor([10.0, 5.5]), atol=0.06)
    assert torch.allclose(draws.var(0), torch.tensor([12.0, 0.75]), atol=0.15)


def test_a_law_for_each_value() -> None:
    one, two, three = Uniform(0.0, 1.0), Exponential(1.0, 20.0), Discrete([1.0, 2.0], [0.5, 0.5])
    assert Independent(2, 2, one, "additive").laws == ((one, one), (one, one))
    items = Independent(2, 2, [one, two], "additive")
    assert items.laws == ((one, two), (one, two))
    assert (items.exchangeable_bidders, items.exchangeable_items, items.convex_support) == (True, False, True)
    bidders = Independent(2, 2, [[one, one], [three, three]], "unit")
    assert bidders.laws == ((one, one), (three, three))
    assert (bidders.exchangeable_bidders, bidders.exchangeable_items, bidders.convex_support) == (False, True, False)
    assert bidders.high.tolist() == [[1, 1], [2, 2]]
    assert bidders.project(torch.full((2, 2), 1.6)).tolist() == [[1, 1], [2, 2]]
    assert bidders.density(torch.ones(2, 2)) is None
    values = torch.tensor([[0.5, 2.0], [0.25, 1.0]])
    assert float(items.density(values)) == pytest.approx(math.exp(-3), rel=1e-6)
    unit = torch.rand(500, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(items.quantile(unit)[..., 1], two.quantile(unit[..., 1]))


@pytest.mark.parametrize("law", [[Uniform(0.0, 1.0)], [[Uniform(0.0, 1.0)] * 3] * 2, [[Uniform(0.0, 1.0)] * 2]])
def test_too_few_or_too_many_laws_are_refused(law: list) -> None:
    with pytest.raises(ValueError, match=r"law must be a law, 2 laws \(one an item\), or 3 rows \(one a bidder\) of 2"):
        Independent(3, 2, law, "additive")


@pytest.mark.parametrize("m", [1, 2, 5])
def test_a_projection_on_a_simplex_is_the_nearest_point(m: int) -> None:
    """No corner lies on the outer side of the plane through the projection, square to the move (and all is convex)."""
    setting = Simplex(2, m, 3.0, "additive")
    corners = torch.cat([torch.zeros(1, m), 3 * torch.eye(m)]).double()
    values = 4 * torch.randn(400, 2, m, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    projected = setting.project(values)
    assert bool((projected >= 0).all())
    assert bool((projected.sum(-1) <= 3).all())
    outer = torch.einsum("bnm,bnkm->bnk", values - projected, corners - projected.unsqueeze(-2))
    assert float(outer.max()) < 1e-12
    single = setting.project(values.float())
    assert torch.equal(setting.project(single), single)
    assert bool((single.sum(-1) <= 3).all())
    assert torch.allclose(single.double(), projected, atol=1e-5)


def test_a_simplex_is_uniform() -> None:
    setting = Simplex(1, 3, 2.0, "additive")
    values = setting.sample(40_000, torch.Generator().manual_seed(0))[:, 0].double()
    total, size = values.sum(-1), 40_000
    assert float((total <= 1).double().mean()) == pytest.approx(1 / 8, abs=4 * (7 / 64 / size) ** 0.5)
    assert values.mean(0).tolist() == pytest.approx([0.5] * 3, abs=4 * (0.15 / size) ** 0.5)
    corner = (values[:, 2] >= 1).double().mean()  # the tip beyond half of the height
    assert float(corner) == pytest.approx(1 / 8, abs=4 * (7 / 64 / size) ** 0.5)
    assert float(setting.density(torch.full((1, 3), 0.5))) == pytest.approx(6 / 8)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9])
def test_a_common_factor_is_a_gaussian_copula(correlation: float) -> None:
    laws = [[Uniform(0.0, 1.0), Exponential(1.0, 20.0)], [PiecewiseUniform([[1.0, 2.0]], [1.0]), Uniform(2.0, 4.0)]]
    setting = CommonFactor(2, 2, laws, correlation, "additive")
    size = 20_000
    unit = torch.rand(size, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = setting.quantile(unit)
    below = torch.stack([laws[i][j].cdf(values[:, i, j]) for i in range(2) for j in range(2)], -1)
    normal = torch.special.ndtri(below)
    found = torch.corrcoef(normal.T)[*torch.triu_indices(4, 4, 1)]
    assert found.tolist() == pytest.approx([correlation] * 6, abs=4 * (1 - correlation**2) / size**0.5)
    known = stats.multivariate_normal(cov=(1 - correlation) * torch.eye(4, dtype=torch.float64).numpy() + correlation)
    copula = torch.from_numpy(known.pdf(normal.numpy()) / stats.norm.pdf(normal.numpy()).prod(-1))
    marginal = torch.exp(-values[:, 0, 1]) / laws[0][1].mass / 2
    assert torch.allclose(setting.density(values), copula * marginal, rtol=1e-6)
    assert setting.independent == (correlation == 0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: CommonFactor(2, 2, Uniform(0.0, 1.0), 1.0, "unit"),
            "correlation must be a number of at least 0 and b",
        ),
        (lambda: CommonFactor(2, 2, Uniform(0.0, 1.0), -0.1, "unit"), "correlation must be .*, got -0.1"),
        (lambda: Simplex(1, 2, 0.0, "unit"), "high must be a positive number, got 0"),
        (lambda: Simplex(1, 2, math.inf, "unit"), "high must be a positive number, got inf"),
    ],
)
def test_wrong_numbers_are_refused(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_description_says_the_law() -> None:
    said = {
        name: describe(load(name)) for name in ("a", "exponential_3x1", "correlated", "triangle", "yao", "rectangle")
    }
    assert said["a"].endswith("additive demand, values from 0 to 1")
    assert said["exponential_3x1"].endswith("values exponential of mean 3 on [0, 60]")
    assert said["correlated"].endswith("values from 0 to 1, correlated (0.5)")
    assert said["triangle"].endswith("each bidder's values uniform on v >= 0 with a sum of at most 1")
    assert said["yao"].endswith("values in {1, 2} with chances 0.5, 0.5, support not convex")
    assert said["rectangle"].endswith("values from [0, 4] x [0, 3]")
    mixed = Independent(2, 2, [[Uniform(0.0, 1.0), Exponential(1.0, 20.0)], [Uniform(0.0, 2.0)] * 2], "additive")
    assert describe(mixed).endswith("values U[0, 1] x exponential of mean 1 on [0, 20] (bidder 1)")


def test_a_misreporter_refuses_a_discrete_support() -> None:
    with pytest.raises(ValueError, match="on a discrete support they have none; use regret=standard"):
        regret_mode("misreporter").prepare(load("yao"), None, torch.Generator())
    regret_mode("misreporter").prepare(load("two_intervals"), None, torch.Generator())


def test_an_audit_of_a_discrete_support_finds_the_best_report() -> None:
    setting = load("yao")
    for seed in range(3):
        mechanism = network(setting, seed, scale=4.0).double()
        report = audit(mechanism, setting, "fast", 60, 0)
        values = setting.sample(60, generator(0, Stream.AUDIT)).double()
        atoms = torch.tensor([1.0, 2.0], dtype=torch.float64)
        reports = torch.cartesian_prod(atoms, atoms).view(4, 1, 1, 2).expand(4, 60, 2, 2)
        with torch.no_grad():
            best = torch.stack([deviation_utility(mechanism, values, lie) for lie in reports]).amax(0)
            gain = best - utility(values, mechanism(values))
        assert float(gain.max()) > 0.01
        assert torch.allclose(report.instances.gain, gain, atol=1e-6)
        assert set(report.instances.misreport.unique().tolist()) <= {1.0, 2.0}
        assert "misreport_outside_support" not in report.flags
