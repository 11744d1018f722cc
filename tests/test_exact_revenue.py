"""What is said to be an exact revenue is one, or is not said: long tails, narrow peaks, atoms that are no dyadics."""

import math

import pytest
import torch
from torch import distributions

from truthful.auction import revenue
from truthful.laws import Distribution, Exponential, Law
from truthful.mechanisms import VCG
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
