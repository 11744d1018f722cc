import math

import pytest
import torch

from truthful.duals import Ascent, AugmentedLagrangian, Budget
from truthful.schedules import AnnealedBudget, ConstantBudget, ConstantRate, CosineRate, LinearBudget, WarmupRate


def test_the_budget_follows_equation_2() -> None:
    dual = Budget(2, rate=0.5, multiplier=1.0)
    regret, revenue = torch.tensor([0.01, 0.03]), torch.tensor(0.8)
    assert float(dual(regret, revenue)) == pytest.approx(0.04)
    dual.update(regret, revenue, torch.tensor(0.001))
    assert float(dual.multiplier) == pytest.approx(1 + 0.5 * (math.log(0.04 / 0.8) - math.log(0.001)))


def test_the_budget_has_a_floor_and_stays_positive() -> None:
    dual = Budget(2, rate=0.5, multiplier=20.0)
    dual.update(torch.zeros(2), torch.tensor(0.8), torch.tensor(0.01))
    assert float(dual.multiplier) == pytest.approx(20 + 0.5 * (math.log(1e-9) - math.log(0.01)))
    for _ in range(5):
        dual.update(torch.zeros(2), torch.tensor(0.0), torch.tensor(0.01))
    assert float(dual.multiplier) == 0


@pytest.mark.parametrize("kind", [Budget, Ascent])
def test_the_budget_finds_a_known_optimum(kind: type[Budget | Ascent]) -> None:
    """Maximise x subject to x^2/x <= 1/4: x = 1/4, and -1 + g 2x = 0 gives g = 2."""
    dual = kind(1, rate=0.02, multiplier=1.0)
    x = torch.tensor(0.6, requires_grad=True)
    for _ in range(4000):
        (gradient,) = torch.autograd.grad(dual(x.square().unsqueeze(0), x) - x, x)
        with torch.no_grad():
            dual.update(x.detach().square().unsqueeze(0), x.detach(), torch.tensor(0.25))
            x -= 0.05 * gradient
    assert float(x) == pytest.approx(0.25, abs=1e-4)
    assert float(dual.multiplier) == pytest.approx(2, abs=1e-3)


def test_ascent_meets_a_budget_on_what_is_mostly_0() -> None:
    """A violation of 1/g in one iteration of three, whose mean is .01 at g = 33; log rules end with ten times that."""
    means = []
    for kind in (Ascent, Budget):
        dual = kind(1, rate=0.05, multiplier=10.0)
        seen = []
        for t in range(8000):
            violation = 1 / float(dual.multiplier.clamp_min(0.1)) if t % 3 == 0 else 0.0
            dual.update(torch.tensor([violation]), torch.tensor(1.0), torch.tensor(0.01))
            seen.append(violation)
        means.append(sum(seen[-2000:]) / 2000)
    assert means[0] == pytest.approx(0.01, rel=0.05)
    assert means[1] > 0.1


def test_the_augmented_lagrangian_finds_a_known_optimum() -> None:
    """Minimise x^2 subject to x >= 1, the violation 1 - x as regret: x = 1, multiplier 2."""
    dual = AugmentedLagrangian(1, multiplier=0.0, rho=1.0, update_every=20, rho_growth=0.0, rho_every=1000)
    x = torch.tensor(0.0, requires_grad=True)
    for _ in range(4000):
        (gradient,) = torch.autograd.grad(x.square() + dual((1 - x).unsqueeze(0), x), x)
        with torch.no_grad():
            x -= 0.05 * gradient
            dual.update((1 - x).unsqueeze(0), x, torch.tensor(1.0))
    assert float(x) == pytest.approx(1, abs=1e-3)
    assert float(dual.multiplier) == pytest.approx(2, abs=1e-2)


def test_the_augmented_lagrangian_keeps_its_calendar() -> None:
    dual = AugmentedLagrangian(2, multiplier=5.0, rho=1.0, update_every=2, rho_growth=5.0, rho_every=3)
    regret = torch.tensor([0.1, 0.2])
    assert float(dual(regret, torch.tensor(1.0))) == pytest.approx(5 * 0.3 + 0.5 * (0.01 + 0.04))
    seen = []
    for _ in range(6):
        dual.update(regret, torch.tensor(1.0), torch.tensor(1.0))
        seen.append((round(float(dual.multiplier[0]), 6), float(dual.rho)))
    assert seen == [(5.0, 1), (5.1, 1), (5.1, 6), (5.7, 6), (5.7, 6), (6.3, 11)]
    assert dual.state_dict().keys() == {"multiplier", "rho", "updates"}


@pytest.mark.parametrize("schedule", [AnnealedBudget(0.01, 1e-4, 2 / 3), LinearBudget(0.01, 1e-4, 2 / 3)])
def test_a_budget_falls_to_its_end(schedule) -> None:
    at = [schedule(t / 300) for t in range(301)]
    assert at[0] == 0.01
    assert at == sorted(at, reverse=True)
    assert at[199] > 1.0001e-4
    assert at[200:] == pytest.approx([1e-4] * 101)


def test_annealing_is_the_release_s_product() -> None:
    iterations, budget = 900, 0.01
    schedule = AnnealedBudget(0.01, 5e-4, 2 / 3)
    for t in range(iterations):
        assert schedule(t / iterations) == pytest.approx(budget, rel=1e-9)
        budget = max(5e-4, budget * (5e-4 / 0.01) ** (1.5 / iterations))


def test_a_constant_budget() -> None:
    schedule = ConstantBudget(1e-3)
    assert (schedule(0.0), schedule(1.0), schedule.start, schedule.end) == (1e-3,) * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1e-4, 1e-2, 0.5), "rmax.end must not be above rmax.start"),
        ((1e-2, 0.0, 0.5), "must be positive"),
        ((1e-2, 1e-4, 0.0), "rmax.fraction must be above 0"),
        ((1e-2, 1e-4, 1.5), "rmax.fraction must be above 0"),
    ],
)
def test_a_wrong_budget_is_refused(arguments: tuple, message: str) -> None:
    for schedule in (AnnealedBudget, LinearBudget):
        with pytest.raises(ValueError, match=message):
            schedule(*arguments)


def test_rate_schedules() -> None:
    assert ConstantRate()(0.7) == 1
    cosine = CosineRate(0.1)
    assert (cosine(0.0), cosine(0.5), cosine(1.0)) == pytest.approx((1, 0.55, 0.1))
    warmup = WarmupRate(0.2, CosineRate(0.0))
    assert (warmup(0.0), warmup(0.1), warmup(0.2), warmup(0.6), warmup(1.0)) == pytest.approx((0, 0.5, 1, 0.5, 0))
    assert warmup.decays
    assert not WarmupRate(0.2, ConstantRate()).decays
    for wrong in (lambda: CosineRate(2.0), lambda: WarmupRate(0.0, ConstantRate())):
        with pytest.raises(ValueError, match="lr_schedule"):
            wrong()


@pytest.mark.parametrize("arguments", [{"rate": -1.0}, {"multiplier": -1.0}])
def test_a_wrong_dual_is_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="dual"):
        Budget(**{"n_bidders": 2, "rate": 0.1, "multiplier": 1.0, **arguments})
