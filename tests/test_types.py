"""Bidders' types that are more than values: private budgets, which are reported, and contexts, which are public."""

import itertools
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from tests.conftest import CONF, SMALL, interrupted, regret_mode, same
from tests.test_cli import Cli
from tests.test_engine import Traced
from tests.test_training import fit, make
from truthful.app import build_mechanism
from truthful.auction import UNAFFORDABLE, Outcome, deviation_utility, revenue, utility
from truthful.auditing import audit
from truthful.console import describe
from truthful.engine import Eager
from truthful.errors import UserError
from truthful.laws import Discrete, Uniform
from truthful.mechanisms import BudgetedRegretNet, CITransNet, Mechanism
from truthful.population import Stacked
from truthful.report import find_cards, make_rows
from truthful.settings import ContinuousContexts, DiscreteContexts, PrivateBudgets, Setting, UniformBox


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
    payment = torch.tensor([0.2, 0.2], requires_grad=True)
    worth = utility(torch.tensor([[1.0, 0.2], [1.0, 0.1]]), Outcome(outcome.allocation, payment, budgeted=True))
    assert torch.autograd.grad(worth.sum(), payment)[0].tolist() == [-1, -1]


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
    assert bool((report.instances.gain[:, 0] <= value * named - named.square() + 2e-6).all())
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


@pytest.mark.parametrize(
    "name", ["standard", "probing", "climbing", "refined", "better_of", "gradient", "misreporter", "noisy"]
)
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


def budgeted(n: int, m: int, demand: str) -> BudgetedRegretNet:
    """A small network whose outcomes differ from report to report."""
    mechanism = BudgetedRegretNet(n, m, demand, 2, 8, torch.nn.Tanh(), budgeted=True)
    mechanism.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in mechanism.parameters():
            parameter.mul_(2)
    return mechanism


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m", "demand"), [(1, 1, "additive"), (3, 2, "additive"), (2, 3, "unit")])
@torch.no_grad()
def test_nobody_is_charged_above_his_budget_or_his_bid(n: int, m: int, demand: str, dtype: torch.dtype) -> None:
    reports = 2 * torch.rand(4, 500, n, m + 1, generator=torch.Generator().manual_seed(1), dtype=dtype)
    reports[0, ..., -1] = 0
    reports[1, ..., -1] /= 100
    reports[2] /= 1e30
    outcome = budgeted(n, m, demand).to(dtype)(reports)
    assert outcome.budgeted
    assert outcome.allocation.shape == (4, 500, n, m)
    assert bool((outcome.payment <= reports[..., -1]).all())
    assert float(outcome.payment[0].max()) == 0
    assert float(utility(reports, outcome).min()) >= -1e-6
    assert float(outcome.allocation.min()) >= 0
    assert float(outcome.allocation.sum(-2).max()) <= 1 + 1e-6
    if demand == "unit":
        assert float(outcome.allocation.sum(-1).max()) <= 1 + 1e-6


def test_budgets_matter_as_soon_as_they_bind_and_gradients_are_right() -> None:
    mechanism = budgeted(2, 2, "additive").double()
    reports = torch.rand(6, 2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    reports[:3, :, -1] = 0.01
    outcome = mechanism(reports)
    assert torch.equal(outcome.payment[:3], reports[:3, :, -1])
    assert bool((outcome.payment[3:] < reports[3:, :, -1]).any())
    assert torch.autograd.gradcheck(lambda bids: revenue(mechanism(bids)), reports.requires_grad_())
    nothing = mechanism(torch.zeros(1, 2, 3, dtype=torch.float64))
    gradients = torch.autograd.grad(
        revenue(mechanism(reports)).sum() + nothing.payment.sum() + nothing.allocation.sum(),
        list(mechanism.parameters()),
    )
    assert all(bool(gradient.isfinite().all()) and float(gradient.abs().max()) > 0 for gradient in gradients)


CONTEXTUAL = [ContinuousContexts(3, 2, 4, "additive"), DiscreteContexts(2, 3, 5, 0.05, "unit")]


def contextual(setting: Setting) -> CITransNet:
    """A small network whose outcomes differ from bid to bid and from context to context."""
    mechanism = CITransNet(**setting.shape, blocks=1, width=8, heads=2, embedding=4, activation=torch.nn.Tanh())
    mechanism.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in mechanism.parameters():
            parameter.mul_(2)
    return mechanism


@pytest.mark.parametrize("setting", CONTEXTUAL, ids=["continuous", "discrete"])
@torch.no_grad()
def test_bidders_and_items_are_permuted_with_their_contexts(setting: Setting) -> None:
    n, m, d = setting.n_bidders, setting.n_items, setting.dimension
    mechanism, profiles = contextual(setting), setting.sample(40, torch.Generator().manual_seed(1))
    before = mechanism(profiles)
    bidders, items = torch.randperm(n).roll(1), torch.arange(m).roll(1)
    values, own, theirs = profiles[:, bidders].split([m, d, m * d], -1)
    theirs = theirs.unflatten(-1, (m, d))
    moved = mechanism(torch.cat([values[..., items], own, theirs[..., items, :].flatten(-2)], -1))
    assert torch.allclose(moved.allocation, before.allocation[:, bidders][..., items], atol=1e-5)
    assert torch.allclose(moved.payment, before.payment[:, bidders], atol=1e-5)
    other = mechanism(torch.cat([values, own, theirs[..., items, :].flatten(-2)], -1))
    assert float((other.allocation - before.allocation[:, bidders]).abs().max()) > 1e-2  # contexts alone matter
    assert float(utility(profiles, before).min()) >= -1e-6
    assert float(before.allocation.sum(-2).max()) <= 1 + 1e-6


@torch.no_grad()
def test_a_network_for_contexts_is_for_any_number_of_bidders_and_items() -> None:
    small, large = (ContinuousContexts(n, m, 3, "additive") for n, m in ((2, 2), (3, 5)))
    one, other = contextual(small), contextual(large)
    other.load_state_dict(one.state_dict())
    profiles = large.sample(20, torch.Generator().manual_seed(2))
    assert torch.equal(one(profiles).allocation, other(profiles).allocation)
    members = Stacked([one, contextual(small)])
    assert members(small.sample(8, torch.Generator()).expand(2, -1, -1, -1)).payment.shape == (2, 8, 2)


def test_contexts_are_what_is_said() -> None:
    setting = ContinuousContexts(2, 3, 10, "additive")
    profiles = setting.sample(20_000, torch.Generator().manual_seed(0)).double()
    values, own, theirs = profiles.split([3, 10, 30], -1)
    assert torch.equal(theirs[:, 0], theirs[:, 1])
    most = torch.einsum("bid,bimd->bim", own, theirs.unflatten(-1, (3, 10))).sigmoid()
    share = values / most
    assert float(share.max()) <= 1 + 1e-6
    assert share.mean((0, 1)).tolist() == pytest.approx([0.5] * 3, abs=0.01)
    assert (float(own.min()), float(own.max())) == pytest.approx((-1, 1), abs=1e-3)
    assert setting.high.unique().tolist() == pytest.approx([1 / (1 + 2.718281828**-10)])

    setting = DiscreteContexts(2, 2, 10, 0.05, "additive")
    values, own, theirs = setting.sample(20_000, torch.Generator().manual_seed(0)).split([2, 10, 20], -1)
    number = 1 + own.argmax(-1, keepdim=True) + 1 + theirs.unflatten(-1, (2, 10)).argmax(-1)
    mean = (number % 10 + 1) / 11
    for low, high in ((0.3, 0.7), (0.0, 0.1), (0.9, 1.0)):  # in the middle, and where it is cut at 0 and at 1
        apart = (values - mean)[(mean > low) & (mean < high)]
        assert float(apart.mean()) == pytest.approx({0.3: 0.0, 0.0: 0.0039, 0.9: -0.0039}[low], abs=1e-3)
    assert "contexts x of bidders and y of items from 1 to 10, 30 public numbers a bidder" in describe(setting)


@pytest.mark.parametrize(
    ("setting", "mechanism", "mode"),
    [("budgets_1x1", "budgeted_regretnet", "standard"), ("context_2x2", "citransnet", "probing")],
)
def test_training_goes_on_exactly_and_is_audited_and_reported(
    setting: str, mechanism: str, mode: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = (
        f"setting={setting}",
        f"mechanism={mechanism}",
        "mechanism.width=8",
        f"regret={mode}",
        "iterations=10",
        *SMALL,
        "trainer.audit_every=0",
    )
    assert cli("train.py", *small, "hydra.run.dir=whole").code == 0
    with interrupted(monkeypatch, 6):
        assert cli("train.py", *small, "hydra.run.dir=run").code != 0
    assert cli("train.py", "resume=run").code == 0
    assert same(tmp_path / "whole", tmp_path / "run")
    assert {"regret_tail.png", "regret_found.png", "misreports.npz"} <= {path.name for path in Path("run").iterdir()}
    answer = cli("evaluate.py", "run=run", "audit=fast", "audit.samples=8", "hydra.run.dir=again")
    assert answer.code == 0, answer.err
    rows, _ = make_rows(find_cards([Path("run"), Path("again")])[0], {}, {})
    assert {row.setting for row in rows} == {setting}
    assert all(row.facts["mechanism"] == mechanism for row in rows)
    assert cli("explore.py", "run=run").err.count("\n") == 1


def test_a_network_for_contexts_can_be_compiled() -> None:
    setting, runs = ContinuousContexts(2, 2, 3, "additive"), []
    for engine in (Eager(), Traced()):
        module = make(4, setting=setting, regret=regret_mode("local"), mechanism=contextual(setting)).double()
        module.data.sample = module.data.sample.double()
        module.engine = engine
        runs.append(fit(module))
    eager, traced = (run.state_dict() for run in runs)
    assert float(eager["history"][3, 1]) > 0
    for name, state in eager.items():
        assert torch.allclose(state, traced[name], rtol=0, atol=1e-9), name
