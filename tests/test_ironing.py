"""Ironed virtual values, Myerson's revenue and laws of sums against closed forms, grids and samples."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from truthful.laws import Discrete, Exponential, Law, PiecewiseUniform, Uniform
from truthful.laws.curve import MonotoneCurves
from truthful.laws.ironing import iron, myerson_revenue, virtual_value
from truthful.laws.quadrature import gauss_legendre
from truthful.laws.sums import ConvolvedSum, DiscreteSum, UniformSum, sum_law

BIMODAL = PiecewiseUniform([[0.0, 3.0], [3.0, 8.0]], [0.75, 0.25])  # Myerson's textbook example of ironing


@dataclass(frozen=True)
class Power(Law):
    """F(v) = v^k on [0, 1]."""

    power: float
    low: float = 0.0
    high: float = 1.0

    def cdf(self, values: Tensor) -> Tensor:
        return values.clamp(0, 1) ** self.power

    def quantile(self, unit: Tensor) -> Tensor:
        return unit ** (1 / self.power)

    def density(self, values: Tensor) -> Tensor:
        inside = (values >= 0) & (values <= 1)
        return torch.where(inside, self.power * values ** (self.power - 1), 0)


def double(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def exact(number: float) -> object:
    return pytest.approx(number, rel=1e-8, abs=0)


def test_gauss_legendre_is_exact_for_polynomials() -> None:
    nodes, weights = gauss_legendre(double(0.0, 0.3, 2.0), order=5)
    assert float((weights * nodes**9).sum()) == pytest.approx(2**10 / 10, rel=1e-14)
    assert float((weights * nodes**10).sum()) != pytest.approx(2**11 / 11, rel=1e-9)


@pytest.mark.parametrize(("bidders", "revenue"), [(1, 1 / 4), (2, 5 / 12), (3, 17 / 32), (5, 43 / 64)])
def test_myerson_earns_what_is_known_for_uniform_values(bidders: int, revenue: float) -> None:
    assert myerson_revenue([Uniform(0.0, 1.0)] * bidders) == exact(revenue)
    assert myerson_revenue([Uniform(0.0, 7.0)] * bidders) == exact(7 * revenue)


def test_myerson_earns_what_is_known_for_other_values() -> None:
    # 3 * integral over t >= 0 of 1 - (1 - exp(-1 - t))^3
    assert myerson_revenue([Exponential(3.0, 200.0)] * 3) == exact(
        3 * (3 / math.e - 3 / (2 * math.e**2) + 1 / (3 * math.e**3))
    )
    assert myerson_revenue([Uniform(0.0, float(i)) for i in range(1, 6)]) == pytest.approx(2.2976172, abs=1e-7)
    assert myerson_revenue([BIMODAL] * 3) == pytest.approx(2.374867, abs=1e-6)
    price = 3 ** (-1 / 2)  # of one bidder with F = v^2: p (1 - p^2)
    assert myerson_revenue([Power(2.0)]) == exact(price * (1 - price**2))
    assert myerson_revenue([Uniform(4.0, 7.0)]) == exact(4.0)


def test_the_textbook_example_is_ironed_where_it_should_be() -> None:
    law = iron(BIMODAL)
    assert law.ironed == (pytest.approx((2.3819660, 4.3819660, 3 - math.sqrt(5)), abs=1e-7),)
    assert law.reserve == pytest.approx(2.0, abs=1e-12)
    values = double(1.0, 2.3, 2.5, 3.0, 4.3, 5.0, 8.0)
    expected = double(-2.0, 0.6, *[3 - math.sqrt(5)] * 3, 2.0, 8.0)
    assert torch.allclose(law.virtual_value(values), expected, atol=1e-9)
    assert law.threshold(double(0.0, 0.7, 0.77, 2.0, 9.0)).tolist() == pytest.approx(
        [2.0, 2.35, (8 + 0.77) / 2, 5.0, math.inf]
    )


@pytest.mark.parametrize(
    "law", [Uniform(0.0, 2.0), Exponential(3.0, 200.0), Power(3.0)], ids=lambda law: type(law).__name__
)
def test_a_regular_law_keeps_its_virtual_values(law: Law) -> None:
    ironed = iron(law)
    assert ironed.ironed == ()
    values = law.quantile(torch.linspace(0.01, 0.999, 500, dtype=torch.float64))
    assert torch.allclose(ironed.virtual_value(values), virtual_value(law, values), rtol=1e-12)
    assert torch.allclose(ironed.threshold(ironed.virtual_value(values)), values, rtol=1e-9)
    table = MonotoneCurves(ironed.values[None], ironed.virtual[None])(values[:, None])[:, 0]
    positive = values > ironed.reserve
    assert torch.allclose(table[positive], ironed.virtual_value(values)[positive], atol=1e-5 * law.high)


def test_discrete_values_are_ironed() -> None:
    assert iron(Discrete([1.0, 2.0], [0.5, 0.5])).virtual_value(double(1.0, 2.0)).tolist() == [0, 2]
    law = iron(Discrete([1.0, 2.0, 3.0, 5.0], [0.4, 0.1, 0.1, 0.4]))  # the revenue curve is 1, 1.2, 1.5, 2, 0
    assert law.virtual_value(double(1.0, 2.0, 3.0, 5.0)).tolist() == pytest.approx([-5 / 3] * 3 + [5])
    assert law.ironed == (pytest.approx((1.0, 3.0, -5 / 3)),)
    assert law.threshold(double(-2.0, 0.0, 5.0, 5.1)).tolist() == [1, 5, 5, math.inf]
    assert law.reserve == 5
    assert myerson_revenue([Discrete([1.0, 2.0], [0.5, 0.5])] * 2) == exact(1.5)
    with pytest.raises(ValueError, match="must have its atoms at low, kinks and high"):
        iron(Hidden([1.0, 2.0, 3.0], [0.2, 0.5, 0.3]))


class Hidden(Discrete):
    kinks = ()


def test_of_equal_bidders_the_highest_ironed_value_is_what_is_earned() -> None:
    laws = [BIMODAL, Exponential(2.0, 200.0), Discrete([0.5, 2.0, 6.0], [0.5, 0.3, 0.2])]
    unit = torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    virtual = torch.stack([iron(law).virtual_value(law.quantile(unit[:, k])) for k, law in enumerate(laws)], 1)
    earned = virtual.amax(1).clamp_min(0)
    assert float(earned.mean()) == pytest.approx(myerson_revenue(laws), abs=4 * float(earned.std()) / 200_000**0.5)


def test_curves_are_inverse_to_each_other() -> None:
    places, heights = double(0.0, 1.0, 1.0, 2.0, 3.0), double(0.0, 1.0, 2.0, 2.0, 4.0)  # a jump at 1, flat to 2
    curves = MonotoneCurves.stack([(places, heights), (double(0.0, 5.0), double(-1.0, 1.0))], (1, 2))
    asked = double(-0.5, 0.5, 1.0, 1.5, 2.5, 9.0)
    both = torch.stack([asked, asked], -1).unsqueeze(-2)
    assert curves(both)[:, 0, 0].tolist() == [-math.inf, 0.5, 2, 2, 3, 4]
    reached = torch.stack([double(-1.0, 0.5, 1.5, 2.0, 3.0, 5.0)] * 2, -1).unsqueeze(-2)
    assert curves.inverse(reached)[:, 0, 0].tolist() == [0, 0.5, 1, 1, 2.5, math.inf]
    assert curves.inverse(reached, above=True)[:, 0, 0].tolist() == [0, 0.5, 1, 2, 2.5, math.inf]
    assert curves.inverse(reached)[:, 0, 1].tolist()[:3] == pytest.approx([0, 3.75, math.inf])


def test_sums_of_uniform_values_are_exact() -> None:
    irwin_hall = sum_law([Uniform(0.0, 1.0)] * 3)
    assert isinstance(irwin_hall, UniformSum)
    assert irwin_hall.cdf(double(0.5, 1.0, 1.5, 2.5, 3.5)).tolist() == pytest.approx([1 / 48, 1 / 6, 1 / 2, 47 / 48, 1])
    assert irwin_hall.density(double(0.5, 1.5, 3.5)).tolist() == pytest.approx([1 / 8, 3 / 4, 0])
    assert irwin_hall.quantile(double(0.0, 1 / 6, 1 / 2)).tolist() == pytest.approx([0, 1, 1.5])
    boxes = [Uniform(4.0, 16.0), Uniform(4.0, 7.0), Uniform(0.0, 1.0)]
    law = sum_law(boxes)
    points = torch.linspace(law.low, law.high, 21, dtype=torch.float64)
    values = torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total = sum(box.quantile(values[:, k]) for k, box in enumerate(boxes))
    assert torch.allclose((total[:, None] <= points).double().mean(0), law.cdf(points), atol=0.005)
    slope = (law.cdf(points[1:-1] + 1e-5) - law.cdf(points[1:-1] - 1e-5)) / 2e-5
    assert torch.allclose(slope, law.density(points[1:-1]), atol=1e-6)


def test_other_sums_are_convolved() -> None:
    erlang = sum_law([Exponential(1.0, 40.0)] * 2)
    assert isinstance(erlang, ConvolvedSum)
    points = torch.linspace(0, 40, 1001, dtype=torch.float64)
    assert torch.allclose(erlang.cdf(points), 1 - (1 + points) * torch.exp(-points), atol=2e-7)
    assert iron(erlang).reserve == pytest.approx((1 + 5**0.5) / 2, abs=1e-6)
    assert myerson_revenue([erlang]) == pytest.approx(0.839962, abs=1e-6)
    for laws in ([Uniform(0.0, 1.0)] * 10, [Uniform(4.0, 16.0), Uniform(4.0, 7.0)]):
        points = torch.linspace(sum_law(laws).low, sum_law(laws).high, 501, dtype=torch.float64)
        assert torch.allclose(ConvolvedSum(tuple(laws)).cdf(points), sum_law(laws).cdf(points), atol=1e-7, rtol=0)


def test_sums_of_discrete_values_are_sums_of_atoms() -> None:
    law = sum_law([Discrete([1.0, 2.0], [0.5, 0.5])] * 2)
    assert isinstance(law, DiscreteSum)
    assert law.table == ((2.0, 0.25), (3.0, 0.5), (4.0, 0.25))
    assert law.cdf(double(1.9, 2.0, 3.5, 4.0)).tolist() == [0, 0.25, 0.75, 1]
    assert law.quantile(double(0.1, 0.25, 0.5, 1.0)).tolist() == [2, 2, 3, 4]
    assert iron(law).reserve == 3  # 3 * 3/4 > 2 > 4 * 1/4
    with pytest.raises(ValueError, match="not for both"):
        sum_law([Discrete([1.0, 2.0], [0.5, 0.5]), Uniform(0.0, 1.0)])
