"""Mechanisms that are truthful whatever they have learned: RochetNet and MyersonNet."""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL, Answer, poison, result, same
from tests.test_engine import Traced
from tests.test_training import fit, make
from truthful.auction import Outcome, deviation_utility, revenue, utility
from truthful.data import FreshSamples
from truthful.duals import Budget
from truthful.mechanisms import Mechanism, Menu, MyersonNet, RochetNet
from truthful.population import Stacked
from truthful.population_training import PopulationModule
from truthful.regret.none import NoRegret
from truthful.results import method_name
from truthful.settings import Setting, Simplex, UniformBox

Cli = Callable[..., Answer]

SETTINGS: dict[str, Setting] = {
    "additive": UniformBox(1, 2, [4.0, 4.0], [16.0, 7.0], "additive"),
    "unit": UniformBox(1, 2, 2.0, 3.0, "unit"),
    "item": UniformBox(3, 1, 0.0, [[1.0], [2.0], [3.0]], "additive"),
}


def build(
    name: str, seed: int = 0, scale: float = 1.0, hot: float = 0.03, cold: float = 0.003, utility_network: bool = False
) -> Mechanism:
    """As it begins, with parameters `scale` times as large."""
    setting = SETTINGS[name]
    mechanism: Mechanism
    if name == "item":
        mechanism = MyersonNet(setting, groups=4, lines=4, hot=hot, cold=cold)
    else:
        mechanism = RochetNet(setting, entries=20, utility_network=utility_network, hot=hot, cold=cold)
    mechanism.initialise(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in mechanism.parameters():
            parameter.mul_(scale)
    return mechanism


class Smoothed(Mechanism):
    """What training differentiates, as a rule."""

    def __init__(self, own: Mechanism) -> None:
        super().__init__(own.n_bidders, own.n_items, own.demand)
        self.own = own

    def forward(self, bids: torch.Tensor) -> Outcome:
        return self.own.relaxed(bids)


def largest_gain(mechanism: Mechanism, setting: Setting) -> float:
    """Of all reports on a grid, over some profiles and bidders."""
    values = setting.sample(40, torch.Generator().manual_seed(1)).double()
    low, high = setting.bounds(values)
    steps = torch.linspace(0, 1, 60 if setting.n_items == 2 else 400, dtype=torch.float64)
    shares = torch.cartesian_prod(*[steps] * setting.n_items).reshape(-1, 1, 1, setting.n_items)
    lies = (low + (high - low) * shares).expand(-1, len(values), -1, -1)
    with torch.no_grad():
        assert float(mechanism(values).allocation.sum((-2, -1)).mean()) > 0
        gain = deviation_utility(mechanism, values.expand_as(lies), lies) - utility(values, mechanism(values))
    return float(gain.max())


@pytest.mark.parametrize("scale", [0.5, 1.0])
@pytest.mark.parametrize("name", SETTINGS)
def test_no_report_on_a_grid_beats_the_truth(name: str, scale: float) -> None:
    assert largest_gain(build(name, scale=scale).double(), SETTINGS[name]) <= 1e-12


@pytest.mark.parametrize("name", ["additive", "unit"])
def test_a_utility_network_is_truthful_in_training_too(name: str) -> None:
    network, menu = (Smoothed(build(name, hot=0.3, utility_network=own).double()) for own in (True, False))
    assert largest_gain(network, SETTINGS[name]) <= 1e-12
    assert largest_gain(menu, SETTINGS[name]) > 1e-3


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_virtual_values_increase_and_their_inverse_is_one(scale: float) -> None:
    mechanism = build("item", scale=scale).double()
    bids = torch.linspace(-5, 20, 2000, dtype=torch.float64).unsqueeze(-1).expand(-1, 3)
    with torch.no_grad():
        virtual = mechanism.virtual(bids)
        assert bool((virtual.diff(dim=0) > 0).all())
        assert torch.allclose(mechanism.inverse(virtual), bids, rtol=0, atol=1e-9)
        assert not torch.allclose(virtual.diff(n=2, dim=0), torch.zeros((), dtype=torch.float64), atol=1e-3)


def test_every_line_is_somewhere_the_virtual_value_at_first() -> None:
    mechanism = build("item").double()
    bids = 3 * torch.rand(20_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    mechanism.virtual(bids).sum().backward()
    assert mechanism.heights.grad is not None
    assert float((mechanism.heights.grad != 0).double().mean()) > 0.9


@pytest.mark.parametrize("name", SETTINGS)
def test_what_training_sees_tends_to_the_rule(name: str) -> None:
    values = SETTINGS[name].sample(20_000, torch.Generator().manual_seed(2)).double()
    earned = []
    mechanism = build(name, hot=0.1, cold=1e-5).double()
    for progress in (0.0, 0.5, 1.0):
        mechanism.anneal(progress)
        with torch.no_grad():
            earned.append(float((revenue(mechanism.relaxed(values)) - revenue(mechanism(values))).abs().mean()))
    assert earned[0] > 10 * earned[1] > 100 * earned[2]


def test_a_learned_menu_has_an_exact_revenue_with_two_items_whatever_its_size() -> None:
    for setting in (SETTINGS["additive"], UniformBox(1, 2, 0.0, 1.0, "additive"), Simplex(1, 2, 1.0, "additive")):
        mechanism = RochetNet(setting, entries=300, utility_network=False, hot=0.01, cold=0.01)
        assert setting.optimum is not None
        assert setting.optimum.menu is not None
        with torch.no_grad():  # the optimum, and entries that nobody takes
            mechanism.scores.fill_(-40)
            mechanism.prices.copy_(torch.linspace(1, 20, 300))
            for k, (chances, price) in enumerate(setting.optimum.menu):
                mechanism.scores[k] = torch.tensor(chances).logit(eps=1e-18)
                mechanism.prices[k] = price / mechanism.temperature.unit
        assert mechanism.exact_revenue(setting) == pytest.approx(setting.optimal_revenue, rel=1e-6)


def test_the_exact_revenue_of_many_entries_is_that_of_a_sample() -> None:
    setting = UniformBox(1, 2, 0.0, 1.0, "additive")
    types = torch.cartesian_prod(*[torch.linspace(0.1, 1, 6, dtype=torch.float64)] * 2)
    entries = torch.cat([types / 2, (types**2).sum(1, keepdim=True) / 4], 1)  # tangents of |v|^2 / 4: all are taken
    menu = Menu(setting, entries.tolist()).double()
    paid = menu(setting.sample(200_000, torch.Generator().manual_seed(5)).double()).payment
    exact = menu.exact_revenue(setting)
    assert exact is not None
    assert abs(exact - float(paid.mean())) < 4 * float(paid.std()) / len(paid) ** 0.5


@pytest.mark.parametrize(("name", "optimal"), [("additive", 88 / 9), ("unit", 2.1331), ("item", None)])
def test_it_earns_after_seconds_of_training(name: str, optimal: float | None) -> None:
    setting = SETTINGS[name]
    module = make(
        300,
        mechanism=build(name),
        setting=setting,
        regret=NoRegret(),
        dual=Budget(setting.n_bidders, 0.1, 1.0),
        data=FreshSamples(),
        optimizer=partial(torch.optim.Adam, lr=0.03),
        batch=256,
    )
    values = setting.sample(50_000, torch.Generator().manual_seed(3))

    def earned() -> float:
        with torch.no_grad():
            return float(revenue(module.mechanism(values)).mean())

    before, best = earned(), setting.optimal_revenue
    assert best == pytest.approx(optimal or best, abs=1e-4)
    fit(module)
    assert 0.97 * best < earned() < 1.01 * best
    assert earned() > before
    assert module.metrics["regret"] == 0


@pytest.mark.parametrize("name", SETTINGS)
def test_members_and_the_traced_iteration_equal_single_runs(name: str) -> None:
    setting = SETTINGS[name]

    def single(seed: int) -> Mechanism:
        return make(
            12,
            mechanism=build(name, seed),
            setting=setting,
            regret=NoRegret(),
            dual=Budget(setting.n_bidders, 0.1, 1.0),
            data=FreshSamples(),
            seed=seed,
        )

    alone = [fit(single(seed)) for seed in (0, 1)]
    traced = single(0)
    traced.engine = Traced()
    population = PopulationModule([single(0), single(1)])
    together = [*fit(population).members, fit(traced)]
    for own, twin in zip(together, [*alone, alone[0]], strict=True):
        for parameter, other in itertools.zip_longest(own.mechanism.parameters(), twin.mechanism.parameters()):
            assert torch.allclose(parameter, other, rtol=0, atol=1e-5)
    bids = torch.stack([setting.sample(50, torch.Generator().manual_seed(seed)) for seed in (0, 1)])
    stacked = Stacked([module.mechanism for module in alone])
    for k, module in enumerate(alone):
        assert torch.allclose(stacked(bids).payment[k], module.mechanism(bids[k]).payment, atol=1e-5)
        assert torch.allclose(stacked.relaxed(bids).payment[k], module.mechanism.relaxed(bids[k]).payment, atol=1e-4)


@pytest.mark.parametrize(("name", "setting"), [("rochetnet", "d"), ("myersonnet", "uniform_3x1")])
def test_it_chooses_to_train_without_a_search_and_resumes_exactly(
    name: str, setting: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("train.py", f"mechanism={name}", f"setting={setting}", "iterations=30", *SMALL[1:])
    whole = cli(*arguments, "hydra.run.dir=whole")
    assert whole.code == 0, whole.err
    assert "none: truthful by construction" in " ".join(whole.out.split())
    content = result(tmp_path / "whole")
    assert (content["regret_mode"], method_name(content)) == ("none", name)
    assert content["audit"]["regret_max"] <= 1e-9
    exact = content["exact_revenue"]
    assert content["audit"]["revenue"] > 0
    assert exact is None if name == "myersonnet" else 0 < exact < content["optimal_revenue"]

    with monkeypatch.context() as broken:
        poison(broken, FreshSamples)
        assert cli(*arguments, "hydra.run.dir=stopped").code == 1
    assert cli(*arguments, "hydra.run.dir=stopped", "resume=auto").code == 0
    assert same(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("train.py", "mechanism=rochetnet setting=a", "RochetNet is for one bidder, got 2"),
        ("train.py", "mechanism=myersonnet setting=a", "MyersonNet is for one item, got 2"),
        ("train.py", "mechanism=rochetnet setting=d regret=local", "RochetNet is truthful by a theorem"),
        ("train.py", "mechanism=rochetnet setting=d mechanism.entries=0", "entries must be null or a whole number"),
        ("train.py", "mechanism=myersonnet setting=uniform_3x1 mechanism.cold=0.0", "hot and cold must be above 0"),
        ("evaluate.py", "mechanism=rochetnet setting=d", "mechanism=rochetnet has to be trained first"),
        ("explore.py", "mechanism=rochetnet setting=d", "mechanism=rochetnet has to be trained first"),
        ("baselines.py", "mechanisms=[rochetnet] setting=d", "mechanism rochetnet has to be trained first"),
        ("baselines.py", "mechanisms=[regretformer] setting=a", "mechanism regretformer has to be trained first"),
    ],
)
def test_mistakes_are_answered_in_one_line(script: str, arguments: str, said: str, cli: Cli) -> None:
    answer = cli(script, *arguments.split())
    assert answer.code == 1
    assert said in answer.err
    assert answer.err.count("\n") == 1
