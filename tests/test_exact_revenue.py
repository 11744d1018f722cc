"""What is said to be an exact revenue is one, or is not said: long tails, narrow peaks, atoms that are no dyadics."""

import itertools
import math

import pytest
import torch
from torch import distributions

from truthful.auction import revenue
from truthful.laws import Discrete, Distribution, Exponential, Law, PiecewiseUniform
from truthful.mechanisms import VCG, BundledMyerson, ItemwiseMyerson
from truthful.settings import Independent

SPREAD_OUT = [
    Distribution(distributions.Normal(0.5, 0.02), 0.0, 1.0),
    Distribution(distributions.Normal(0.5, 0.005), 0.0, 1.0),
    Distribution(distributions.LogNormal(0.0, 1.5), 0.0, 500.0),
    Distribution(distributions.Gamma(0.7, 1.0), 0.0, 30.0),
    Distribution(distributions.Weibull(1.0, 0.7), 0.0, 50.0),
    Distribution(distributions.Pareto(1.0, 1.2), 1.0, 1000.0),
]


@pytest.mark.parametrize("high", [20.0, 200.0, 1000.0, 1e6])
def test_vcg_for_two_exponential_bidders_with_unit_demand_earns_a_quarter(high: float) -> None:
    # |D| is exponential, and both prefer the same item half of the time: E min = 1/2
    setting = Independent(2, 2, Exponential(1.0, high), "unit")
    assert VCG(2, 2, "unit", 0.0).exact_revenue(setting) == pytest.approx(1 / 4, rel=1e-9 if high > 20 else 1e-6)


@pytest.mark.parametrize("law", SPREAD_OUT, ids=lambda law: law.describe())
def test_vcg_with_unit_demand_earns_what_a_sample_does(law: Law) -> None:
    setting, mechanism = Independent(2, 2, law, "unit"), VCG(2, 2, "unit", 0.0)
    unit = torch.rand(100_000, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    earned = revenue(mechanism(setting.quantile(unit)))
    exact = mechanism.exact_revenue(setting)
    assert abs(float(earned.mean()) - exact) <= 4 * float(earned.std()) / math.sqrt(len(unit))


def test_vcg_claims_no_revenue_that_two_rules_do_not_agree_on() -> None:
    steep = Distribution(distributions.Weibull(1.0, 0.05), 0.0, 1e6)
    assert VCG(2, 2, "unit", 0.0).exact_revenue(Independent(2, 2, steep, "unit")) is None


@pytest.mark.parametrize("high", [20.0, 1e3, 1e4, 1e5, 1e6])
def test_myerson_s_integral_does_not_depend_on_where_nothing_is(high: float) -> None:
    # n bidders: the integral over t >= 0 of 1 - (1 - exp(-1 - t))^n
    for n, known in ((1, math.exp(-1)), (2, 2 * math.exp(-1) - math.exp(-2) / 2)):
        setting = Independent(n, 1, Exponential(1.0, high), "additive")
        assert ItemwiseMyerson(setting).exact_revenue(setting) == pytest.approx(known, rel=1e-8)


@pytest.mark.parametrize("law", SPREAD_OUT, ids=lambda law: law.describe())
def test_one_bidder_pays_the_best_price(law: Law) -> None:
    tails = 2.0 ** -torch.linspace(0, 30, 30_001, dtype=torch.float64)
    prices = torch.cat([law.quantile(tails), law.quantile(1 - tails)])
    best = float((prices * (1 - law.cdf(prices))).max())
    setting = Independent(1, 1, law, "additive")
    assert ItemwiseMyerson(setting).exact_revenue(setting) == pytest.approx(best, rel=1e-7)


@pytest.mark.parametrize("high", [60.0, 200.0, 1000.0, 1e5])
def test_the_bundle_of_two_exponential_values_earns_what_is_known(high: float) -> None:
    price = (1 + 5**0.5) / 2  # the best p (1 + p) exp(-p)
    setting = Independent(1, 2, Exponential(1.0, high), "additive")
    exact = BundledMyerson(setting).exact_revenue(setting)
    assert exact == pytest.approx(price * (1 + price) * math.exp(-price), rel=1e-7)


def test_the_bundle_s_revenue_is_not_claimed_where_grids_differ() -> None:
    jump = PiecewiseUniform([[0.0, 0.1], [0.9, 1.0]], [0.5, 0.5])
    for law in (jump, *SPREAD_OUT[2:]):
        setting = Independent(1, 2, law, "additive")
        assert BundledMyerson(setting).exact_revenue(setting) is None


ATOMS = [
    Discrete([0.1, 0.7], [0.5, 0.5]),
    Discrete([0.0, 0.6, 1.0], [0.05, 0.9, 0.05]),
    Discrete([0.0, 0.3, 1.0], [0.05, 0.9, 0.05]),
    Discrete([0.1, 0.3, 0.5, 0.7], [0.1, 0.2, 0.3, 0.4]),  # .1 + .7 and .3 + .5 differ in single precision
    Discrete([1.0, 1.000001, 1.000002, 2.0], [0.2, 0.2, 0.1, 0.5]),
    Discrete([1e-7, 3e-7], [0.5, 0.5]),
    Discrete([1.1, 1000.3, 100000.7], [0.5, 0.3, 0.2]),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 2), (2, 2), (1, 3)])
@pytest.mark.parametrize("law", ATOMS, ids=lambda law: law.describe())
def test_the_bundle_of_discrete_values_earns_what_is_said(
    law: Discrete, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    setting = Independent(*shape, law, "additive")
    mechanism = BundledMyerson(setting)
    profiles = itertools.product(zip(law.atoms, law.probabilities, strict=True), repeat=math.prod(shape))
    values, chances = zip(*(zip(*profile, strict=True) for profile in profiles), strict=True)
    chance = torch.tensor(chances, dtype=torch.float64).prod(-1)
    bids = torch.tensor(values, dtype=dtype).reshape(-1, *shape)
    earned = float((chance * revenue(mechanism(bids)).double()).sum())
    exact = mechanism.exact_revenue(setting)
    assert earned == pytest.approx(exact, rel=1e-9 if dtype == torch.float64 else 1e-6)
    if shape[0] == 1:
        total = bids.double().sum((1, 2))
        optimum = max(float(price * chance[total >= price].sum()) for price in total)
        assert exact == pytest.approx(optimum, rel=1e-6)
