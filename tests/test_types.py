"""Bidders' types that are more than values: private budgets, which are reported, and contexts, which are public."""

import itertools

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from tests.conftest import CONF, regret_mode
from truthful.app import build_mechanism
from truthful.auction import UNAFFORDABLE, Outcome, deviation_utility, utility
from truthful.auditing import audit
from truthful.errors import UserError
from truthful.laws import Discrete, Uniform
from truthful.mechanisms import Mechanism
from truthful.settings import PrivateBudgets, Setting, UniformBox


class PaysWhatHeSays(Mechanism):
    """One item, one bidder: he gets the share value x budget of it, at the price that he names."""

    budgeted = True

    def forward(self, bids: Tensor) -> Outcome:
        bid, budget = bids.unbind(-1)
        share = bid * budget
        return Outcome(share.unsqueeze(-1), share * bid, budgeted=True)


class InContext(Setting):
    """Values U[0, 1], and one public number a bidder: a handicap U[0, 1]."""

    features = 1
    convex_support = True

    def sample(self, size: int, generator: torch.Generator) -> Tensor:
        return torch.rand(size, self.n_bidders, self.n_items + 1, generator=generator)

    def project(self, values: Tensor) -> Tensor:
        return values.clamp(*self.bounds(values))


class Handicapped(Mechanism):
    """A first-price auction in which a bidder's bids count as if they were lower by his handicap."""

    features = 1

    def forward(self, bids: Tensor) -> Outcome:
        own, handicap = bids[..., : self.n_items], bids[..., self.n_items :]
        share = (20 * (own - handicap)).softmax(-2)
        return Outcome(share, (share * own).sum(-1))


@pytest.fixture
def budgets() -> PrivateBudgets:
    return PrivateBudgets(UniformBox(1, 1, 0.0, 1.0, "additive"), Uniform(0.0, 1.0))


@pytest.fixture
def contexts() -> InContext:
    return InContext(2, 1, 0.0, 1.0, "additive")


def test_what_a_bidder_cannot_afford_is_worth_less_than_nothing() -> None:
    outcome = Outcome(torch.tensor([[0.5], [0.5]]), torch.tensor([0.2, 0.2]), budgeted=True)
    assert utility(torch.tensor([[1.0, 0.2], [1.0, 0.1]]), outcome).tolist() == pytest.approx([0.3, UNAFFORDABLE])


def test_budgets_are_reported_and_contexts_are_not(budgets: PrivateBudgets, contexts: InContext) -> None:
    assert (budgets.reported, contexts.reported) == (2, 1)
    values = contexts.sample(6, torch.Generator().manual_seed(0))
    misreport = torch.rand(6, 2, 1)
    mechanism = Handicapped(2, 1, "additive")
    found = deviation_utility(mechanism, values, misreport)
    for b, i in itertools.product(range(6), range(2)):
        bids = values[b].clone()
        bids[i, 0] = misreport[b, i, 0]
        expected = utility(values[b], mechanism(bids))[i]
        assert float(found[b, i]) == pytest.approx(float(expected), abs=1e-6)


def test_the_audit_finds_the_best_affordable_lie(budgets: PrivateBudgets) -> None:
    """He claims the largest budget, and half his value or as much of it as he can pay for."""
    report = audit(PaysWhatHeSays(1, 1, "additive"), budgets, "fast", samples=50)
    value, budget = report.instances.values[:, 0].T
    named = torch.minimum(value / 2, budget.sqrt())
    assert bool((value / 2 > budget.sqrt()).any())
    assert torch.allclose(report.instances.gain[:, 0], value * named - named.square(), atol=1e-4)
    assert bool((report.instances.gain[:, 0] <= value * named - named.square() + 1e-12).all())
    assert not set(report.flags) & {"misreport_outside_support", "individual_rationality_violated", "infeasible"}
    assert report.best_response_revenue == pytest.approx(float(named.square().mean()), abs=2e-3)


def test_the_audit_leaves_contexts_alone(contexts: InContext) -> None:
    mechanism = Handicapped(2, 1, "additive")
    report = audit(mechanism, contexts, "fast", samples=20)
    values = report.instances.values
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 20, 2, 1)
    best = (deviation_utility(mechanism, values, grid) - utility(values, mechanism(values))).amax(0)
    assert report.instances.misreport.shape == (20, 2, 1)
    assert torch.allclose(report.instances.gain, best, atol=1e-6)
    assert float(report.instances.gain.max()) > 0.1


@pytest.mark.parametrize("name", ["standard", "probing", "refined", "better_of", "gradient", "misreporter", "noisy"])
def test_training_searches_lie_in_what_is_reported(name: str, contexts: InContext, budgets: PrivateBudgets) -> None:
    for setting, mechanism in ((contexts, Handicapped), (budgets, PaysWhatHeSays)):
        mode = regret_mode(name)
        for part in mode.modules():
            part.assume_sufficient = True
        sample = setting.sample(8, torch.Generator().manual_seed(1))
        rule = mechanism(setting.n_bidders, 1, "additive")
        mode.prepare(setting, sample, torch.Generator().manual_seed(2))
        begun = mode.begin(setting, sample, slice(0, 8), torch.Generator().manual_seed(3))
        values = sample.clone().requires_grad_()
        truthful = rule(values)
        misreport = mode.find(rule, setting, values, begun, None if mode.staged else truthful)
        assert misreport.shape == (8, setting.n_bidders, setting.reported)
        assert torch.equal(setting.project(misreport), misreport)
        regret = mode(rule, setting, values, truthful, misreport.detach())
        assert regret.shape == (setting.n_bidders,)
        assert bool(regret.isfinite().all())


def test_a_mechanism_that_takes_no_budgets_says_so(budgets: PrivateBudgets) -> None:
    node = OmegaConf.to_container(OmegaConf.load(CONF / "mechanism" / "second_price.yaml"))
    with pytest.raises(UserError, match="the setting has private budgets, which SecondPrice cannot take"):
        build_mechanism({"mechanism": node}, budgets)
    with pytest.raises(ValueError, match="must agree in budgeted, got True and False"):
        audit(PaysWhatHeSays(1, 1, "additive"), UniformBox(1, 1, 0.0, 1.0, "additive"), "fast", samples=4)


def test_budgets_have_laws_of_their_own() -> None:
    values = instantiate(OmegaConf.load(CONF / "setting" / "uniform_2x3.yaml"))
    setting = PrivateBudgets(values, [Uniform(0.0, 2.0), Discrete([1.0, 3.0], [0.5, 0.5])])
    assert setting.low[:, -1].tolist() == [0, 1]
    assert setting.high[:, -1].tolist() == [2, 3]
    assert not setting.convex_support
    assert not setting.exchangeable_bidders
    drawn = setting.sample(100, torch.Generator().manual_seed(0))
    assert set(drawn[:, 1, -1].tolist()) == {1.0, 3.0}
    with pytest.raises(ValueError, match="for a setting of values alone"):
        PrivateBudgets(setting, Uniform(0.0, 1.0))
