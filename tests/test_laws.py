import itertools
import math

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch import distributions as of_torch

from truthful.laws import Discrete, Distribution, Exponential, Law, PiecewiseUniform, Uniform
from truthful.laws.cumulative import Cumulative, gauss_legendre_rule

F64 = torch.float64
MIXTURE = of_torch.MixtureSameFamily(
    of_torch.Categorical(torch.tensor([0.5, 0.5])), of_torch.Laplace(torch.tensor([0.25, 0.75]), torch.tensor(0.1))
)
LAWS = {
    "uniform": Uniform(1.0, 4.0),
    "exponential": Exponential(3.0, 60.0),
    "cut early": Exponential(2.0, 1.0),
    "irregular": PiecewiseUniform([[0.0, 3.0], [3.0, 8.0]], [0.75, 0.25]),
    "gaps": PiecewiseUniform([[0.1, 0.3], [0.5, 0.6], [0.6, 0.9], [1.7, 2.0]], [1.0, 2.0, 3.0, 4.0]),
    "discrete": Discrete([0.1, 0.7, 2.0], [0.5, 0.2, 0.3]),
    "beta": Distribution(of_torch.Beta(2.0, 3.0), 0.0, 1.0),
    "infinite density": Distribution(of_torch.Gamma(0.5, 1.0), 0.0, 20.0),
    "lognormal": Distribution(of_torch.LogNormal(0.0, 1.0), 0.5, 8.0),
    "tail": Distribution(of_torch.Normal(0.0, 1.0), 8.0, 9.0),
    "narrow": Distribution(of_torch.Beta(4e6, 6e6), 0.0, 1.0),
    "mixture": Distribution(MIXTURE, 0.0, 1.0),
}
each_law = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
with_density = pytest.mark.parametrize(
    "law", [law for law in LAWS.values() if not isinstance(law, Discrete)], ids=[k for k in LAWS if k != "discrete"]
)


def inside(law: Law, size: int, dtype: torch.dtype = F64) -> Tensor:
    """Values of the law, ascending."""
    return law.quantile((torch.arange(size, dtype=dtype) + 0.5) / size)


@each_law
def test_quantiles_and_chances_are_inverse(law: Law) -> None:
    """quantile(u) is the smallest v with cdf(v) >= u."""
    unit = torch.linspace(0, 1, 2001, dtype=F64)[1:-1]
    values = law.quantile(unit)
    assert bool((values.diff() >= 0).all())
    assert bool((law.cdf(values) >= unit - 1e-9).all())
    below = law.cdf(torch.nextafter(values, torch.zeros_like(values)))
    assert bool((below <= unit + 1e-9).all())
    ends = torch.tensor([law.low, law.high], dtype=F64)
    assert law.cdf(ends + torch.tensor([-1e-9, 0.0], dtype=F64)).tolist() == pytest.approx([0, 1], abs=1e-12)
    assert law.cdf(torch.tensor([-1.0, law.high + 5], dtype=F64)).tolist() == [0, 1]
    assert law.quantile(torch.tensor([0.0, 1.0], dtype=F64)).tolist() == pytest.approx(ends.tolist(), abs=1e-12)


@each_law
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_draws_stay_in_the_support_and_keep_their_precision_and_shape(law: Law, dtype: torch.dtype) -> None:
    unit = torch.rand(40, 50, generator=torch.Generator().manual_seed(0), dtype=dtype)
    unit[0, :3] = torch.tensor([0.0, 1.0, 1 - torch.finfo(dtype).eps / 2])
    values = law.quantile(unit)
    assert values.dtype == dtype
    assert values.shape == unit.shape
    assert torch.equal(law.project(values), values)
    assert torch.equal(values.clamp(law.low, law.high), values)
    assert law.cdf(values).dtype == dtype
    density = law.density(values)
    assert (density is None) == isinstance(law, Discrete)
    assert density is None or (density.dtype == dtype and bool((density >= 0).all()))


@each_law
def test_draws_have_the_law(law: Law) -> None:
    """Kolmogorov and Smirnov's distance, below what 1 of 1000 samples exceeds."""
    values = law.quantile(torch.rand(20_000, generator=torch.Generator().manual_seed(1), dtype=F64)).sort().values
    upto, below = torch.searchsorted(values, values, right=True), torch.searchsorted(values, values)
    before = law.cdf(torch.nextafter(values, torch.zeros_like(values)))
    distance = max(float((law.cdf(values) - upto / 20_000).abs().max()), float((before - below / 20_000).abs().max()))
    assert distance < 1.95 / 20_000**0.5


@with_density
def test_the_density_integrates_to_the_chance(law: Law) -> None:
    nodes, weights = gauss_legendre_rule(20)
    tails = torch.tensor([2.0**-k for k in range(2, 60)], dtype=F64)  # a density may be infinite at low
    ends = torch.tensor([law.low, law.high, *law.kinks], dtype=F64)
    edges = torch.cat([inside(law, 200), ends, law.quantile(tails), law.quantile(1 - tails)]).unique()
    width = edges.diff()
    mass = width * (law.density(edges[:-1, None] + width[:, None] * nodes) @ weights)
    assert float(mass.sum()) == pytest.approx(1, abs=1e-8)
    assert torch.allclose(mass.cumsum(0), law.cdf(edges[1:]), rtol=0, atol=1e-8)
    outside = torch.tensor([law.low - 1e-3, law.high + 1e-3, -1.0], dtype=F64)
    assert law.density(outside).tolist() == [0, 0, 0]


@with_density
def test_the_density_is_the_slope_of_the_chance(law: Law) -> None:
    values = inside(law, 101).requires_grad_()
    (slope,) = torch.autograd.grad(law.cdf(values).sum(), values)
    assert torch.allclose(slope, law.density(values.detach()), rtol=1e-6)


@with_density
def test_the_density_is_smooth_between_kinks(law: Law) -> None:
    """At a kink the density or its slope jumps; half way between kinks neither does."""

    def bend(point: float) -> float:
        step = 1e-6 * (law.high - law.low)
        left, here, right = law.density(point + step * torch.tensor([-1.0, 1e-3, 1.0], dtype=F64)).tolist()
        return abs(left - 2 * here + right) / max(left, here, right, 1e-300)

    ends = [law.low, *law.kinks, law.high]
    assert ends == sorted(set(ends))
    assert all(bend(kink) > 1e-7 for kink in law.kinks)
    middles = [(a + b) / 2 for a, b in itertools.pairwise(ends)]
    assert all(bend(middle) < 1e-7 for middle in middles)


@each_law
def test_projection_is_the_nearest_point(law: Law) -> None:
    values = torch.linspace(-1, law.high + 1, 501, dtype=F64)
    support = inside(law, 4001)
    best = (values[:, None] - support).abs().amin(1)
    distance = (law.project(values) - values).abs()
    assert bool((distance <= best + 1e-12).all())
    assert torch.equal(law.project(law.project(values)), law.project(values))
    assert law.convex == torch.equal(law.project(values), values.clamp(law.low, law.high))


def test_an_exponential_law_is_cut_off_and_scaled_up() -> None:
    law = Exponential(3.0, 60.0)
    lost = math.exp(-20)
    values = torch.tensor([1.0, 3.0, 30.0], dtype=F64)
    expected = [(1 - math.exp(-v / 3)) / (1 - lost) for v in (1, 3, 30)]
    assert law.cdf(values).tolist() == pytest.approx(expected, rel=1e-14)
    assert 1 - law.mass == pytest.approx(lost, rel=1e-6)
    assert lost == pytest.approx(2.06e-9, rel=1e-2)
    mean = 3 - 60 * lost / (1 - lost)
    nodes, weights = gauss_legendre_rule(60)
    assert float(law.quantile(nodes) @ weights) == pytest.approx(mean, rel=1e-3)


def test_a_mixture_of_uniforms() -> None:
    law = PiecewiseUniform([[0.0, 3.0], [3.0, 8.0]], [3.0, 1.0])
    assert law.convex
    assert law.kinks == (3.0,)
    assert law == PiecewiseUniform(((0.0, 3.0), (3.0, 8.0)), (0.75, 0.25))
    values = torch.tensor([1.0, 3.0, 5.5], dtype=F64)
    assert law.cdf(values).tolist() == pytest.approx([0.25, 0.75, 0.875])
    assert law.density(values).tolist() == pytest.approx([0.25, 0.05, 0.05])
    gaps = LAWS["gaps"]
    assert not gaps.convex
    assert gaps.kinks == (0.3, 0.5, 0.6, 0.9, 1.7)
    assert gaps.quantile(torch.tensor([0.1, 0.1 + 1e-12], dtype=F64)).tolist() == pytest.approx([0.3, 0.5])
    assert gaps.project(torch.tensor([0.35, 0.45, 1.2, 1.4], dtype=F64)).tolist() == [0.3, 0.5, 0.9, 1.7]


def test_a_discrete_law() -> None:
    law = Discrete([1.0, 2.0, 4.0], [0.5, 0.25, 0.25])
    assert law.cdf(torch.tensor([0.5, 1.0, 1.9, 2.0, 4.0])).tolist() == [0, 0.5, 0.5, 0.75, 1]
    assert law.quantile(torch.tensor([0.0, 0.5, 0.51, 0.75, 0.76, 1.0])).tolist() == [1, 1, 2, 2, 4, 4]
    assert law.project(torch.tensor([0.0, 1.4, 1.6, 3.1, 9.0])).tolist() == [1, 1, 2, 4, 4]
    assert law.kinks == (2.0,)
    assert law.density(torch.tensor([1.0])) is None


def test_every_precision_agrees_on_atoms() -> None:
    law = Discrete([0.1, 0.7], [0.4, 0.6])
    drawn = law.quantile(torch.tensor([0.2, 0.9]))
    assert torch.equal(law.project(drawn.double()), drawn.double())
    assert law.cdf(drawn.double()).tolist() == pytest.approx([0.4, 1])


BY_SCIPY = [
    (of_torch.Beta(2.0, 3.0), stats.beta(2, 3), 0.0, 1.0),
    (of_torch.Beta(0.5, 1.5), stats.beta(0.5, 1.5), 0.1, 1.0),
    (of_torch.Gamma(2.0, 0.5), stats.gamma(2, scale=2), 0.0, 60.0),
    (of_torch.Gamma(0.5, 1.0), stats.gamma(0.5), 0.0, 20.0),
    (of_torch.LogNormal(0.0, 1.0), stats.lognorm(1), 0.0, 50.0),
    (of_torch.StudentT(3.0, 1.0, 2.0), stats.t(3, 1, 2), 0.0, 8.0),
    (of_torch.Normal(0.5, 0.0009765625), stats.norm(0.5, 0.0009765625), 0.0, 1.0),
    (of_torch.Normal(0.0, 1.0), stats.norm(), 8.0, 9.0),
]


@pytest.mark.parametrize(("distribution", "known", "low", "high"), BY_SCIPY, ids=lambda entry: type(entry).__name__)
def test_distributions_of_torch_are_exact(distribution: object, known: object, low: float, high: float) -> None:
    """Through torch's cdf where there is one, and through the table in any case: to 1e-9 in the cdf."""
    law = Distribution(distribution, low, high)
    values = torch.linspace(low, high, 501, dtype=F64)
    expected = torch.from_numpy((known.sf(low) - known.sf(values.numpy())) / (known.sf(low) - known.sf(high)))
    assert torch.allclose(law.cdf(values), expected, rtol=0, atol=1e-9)
    assert torch.allclose(law._table.cdf(values), expected, rtol=0, atol=1e-9)
    unit = torch.linspace(0, 1, 1001, dtype=F64)
    for quantile in (law.quantile, law._table.quantile):
        reached = known.sf(low) - known.sf(quantile(unit).numpy())
        assert torch.allclose(torch.from_numpy(reached / (known.sf(low) - known.sf(high))), unit, rtol=0, atol=1e-9)


def test_a_table_finds_a_kink_and_a_flat_stretch() -> None:
    table = Cumulative(lambda v: (v - 0.3).clamp_min(0), 0.0, 1.0, [])
    values = torch.tensor([0.2, 0.3, 0.65, 1.0], dtype=F64)
    assert table.cdf(values).tolist() == pytest.approx([0, 0, 0.25, 1], abs=1e-12)
    assert table.quantile(torch.tensor([0.25, 1.0], dtype=F64)).tolist() == pytest.approx([0.65, 1], abs=1e-10)


def test_laws_are_compared_by_value() -> None:
    beta = [Distribution(of_torch.Beta(2.0, entry), 0.0, 1.0) for entry in (2.0, 2.0, 3.0)]
    assert beta[0] == beta[1] != beta[2]
    assert hash(beta[0]) == hash(beta[1])
    assert beta[0] != Distribution(of_torch.Beta(2.0, 2.0), 0.0, 0.5)
    assert Distribution(of_torch.LogNormal(0.0, 1.0), 0.0, 5.0) == Distribution(of_torch.LogNormal(0.0, 1.0), 0.0, 5.0)
    assert LAWS["mixture"] == LAWS["mixture"] == Distribution(MIXTURE, 0.0, 1.0)
    assert len({*LAWS.values(), *LAWS.values()}) == len(LAWS)
    assert Discrete([1.0, 2.0], [0.5, 0.5]) == Discrete((1.0, 2.0), (0.5, 0.5)) != Discrete([1.0, 2.0], [0.4, 0.6])
    assert Exponential(1.0, 20.0) == Exponential(1.0, 20.0) != Exponential(1.0, 30.0)


@each_law
def test_a_description_is_short(law: Law) -> None:
    assert 3 < len(law.describe()) < 70


class WithoutDensity(of_torch.Distribution):
    """Has none of the methods of a distribution."""


WRONG = [
    (lambda: Exponential(0.0, 1.0), "positive mean and high, got mean=0 and high=1"),
    (lambda: Exponential(1.0, math.inf), "positive mean and high"),
    (lambda: PiecewiseUniform([[0.0, 0.6], [0.5, 1.0]], [1.0, 1.0]), "disjoint pairs"),
    (lambda: PiecewiseUniform([[0.0], [0.5]], [1.0, 1.0]), "disjoint pairs"),
    (lambda: PiecewiseUniform([[0.7, 1.0], [0.0, 0.3]], [1.0, 1.0]), "ascending order"),
    (lambda: PiecewiseUniform([[-1.0, 0.3]], [1.0]), "0 <= low"),
    (lambda: PiecewiseUniform([], []), "disjoint pairs"),
    (lambda: PiecewiseUniform([[0.0, 1.0]], [0.5, 0.5]), "weights must be 1 positive numbers"),
    (lambda: PiecewiseUniform([[0.0, 1.0], [1.0, 2.0]], [1.0, 0.0]), "weights must be 2 positive numbers"),
    (lambda: Discrete([1.0], [1.0]), "at least two numbers"),
    (lambda: Discrete([2.0, 1.0], [0.5, 0.5]), "ascending order"),
    (lambda: Discrete([-1.0, 1.0], [0.5, 0.5]), ">= 0"),
    (lambda: Discrete([1.0, 2.0], [0.5, 0.6]), "sum 1, got"),
    (lambda: Discrete([1.0, 2.0], [1.0]), "must be 2 positive numbers"),
    (lambda: Distribution(of_torch.Beta(torch.tensor([2.0]), 2.0), 0.0, 1.0), r"got \(1,\) and \(\)"),
    (lambda: Distribution(of_torch.Beta(2.0, 2.0), 0.5, 1.5), "must lie in the distribution's support"),
    (lambda: Distribution(of_torch.Uniform(0.0, 1.0), 2.0, 3.0), "positive mass"),
    (lambda: Distribution(of_torch.Normal(0.0, 1.0), -1.0, 1.0), "0 <= low < high, got low=-1"),
    (lambda: Distribution(of_torch.Poisson(3.0), 0.0, 1.0), "use truthful.laws.Discrete"),
    (lambda: Distribution(WithoutDensity(), 0.0, 1.0), "a support and a log_prob, got WithoutDensity"),
    (lambda: Distribution(of_torch.Beta(0.5, 0.5), 0.0, 1.0), "move that end"),
    (lambda: Distribution(of_torch.Gamma(0.01, 1.0), 0.0, 1.0), "cannot be integrated"),
]


@pytest.mark.parametrize(("build", "message"), WRONG, ids=[message for _, message in WRONG])
@pytest.mark.filterwarnings("ignore")
def test_a_wrong_law_is_refused(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
