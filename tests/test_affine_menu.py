"""Learned menus of affine maximisers: prices by their definition, training that is truthful too, wrong arguments."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL, Answer, result, same
from tests.test_engine import Traced
from tests.test_training import fit, make
from truthful.auction import Outcome, revenue, utility
from truthful.auditing import audit
from truthful.data import FixedSample, FreshSamples
from truthful.engine import Eager
from truthful.mechanisms import AMenuNet, LotteryAMA, Mechanism
from truthful.mechanisms.affine_menu import LearnedAffineMaximizer
from truthful.population import Stacked
from truthful.regret import NoRegret
from truthful.settings import Setting, UniformBox

A = UniformBox(2, 2, 0.0, 1.0, "additive")
UNEQUAL = UniformBox(3, 2, 0.0, [[1.0], [2.0], [0.5]], "unit")


def lottery(setting: Setting, seed: int = 0, temperature: float = 0.05) -> LotteryAMA:
    mechanism = LotteryAMA(setting, 20, temperature, 1.0)
    mechanism.initialise(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        mechanism.tilts.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    return mechanism


def transformer(setting: Setting, seed: int = 0, temperature: float = 0.05) -> AMenuNet:
    mechanism = AMenuNet(setting, 20, temperature, 1, 8, 2, 5.0)
    mechanism.initialise(torch.Generator().manual_seed(seed))
    return mechanism


Make = Callable[..., LearnedAffineMaximizer]
BOTH = pytest.mark.parametrize("make_one", [lottery, transformer])


@BOTH
def test_a_menu_is_the_same_auction_under_another_law(make_one: Make) -> None:
    learned, elsewhere = make_one(A), make_one(UniformBox(2, 2, 0.0, 10.0, "additive"), seed=5)
    elsewhere.load_state_dict(learned.state_dict())
    for part in ("allocations", "boosts", "weights"):
        assert torch.equal(getattr(learned.menu(), part), getattr(elsewhere.menu(), part))


class Relaxed(Mechanism):
    """What training sees, as an auction."""

    def __init__(self, mechanism: Mechanism) -> None:
        super().__init__(mechanism.n_bidders, mechanism.n_items, mechanism.demand)
        self.mechanism = mechanism

    def forward(self, bids: torch.Tensor) -> Outcome:
        return self.mechanism.relaxed(bids)


@BOTH
@pytest.mark.parametrize("setting", [A, UNEQUAL], ids=["additive", "unit"])
def test_prices_are_externalities_by_their_definition(make_one: Make, setting: Setting) -> None:
    mechanism = make_one(setting).double()
    menu = mechanism.menu()
    bids = setting.sample(30, torch.Generator().manual_seed(2)).double()
    outcome = mechanism(bids)
    winners = set()
    for k, bid in enumerate(bids):
        parts = menu.weights[:, None] * (bid[:, None] * menu.allocations.transpose(0, 1)).sum(-1)
        score = parts.sum(0) + menu.boosts
        best = int(score.argmax())
        winners.add(best)
        assert torch.equal(outcome.allocation[k], menu.allocations[best])
        for i in range(setting.n_bidders):
            price = ((score - parts[i]).max() - (score - parts[i])[best]) / menu.weights[i]
            assert float(outcome.payment[k, i]) == pytest.approx(float(price), abs=1e-12)
    assert len(winners) > 3


@BOTH
def test_training_sees_a_truthful_auction_that_tends_to_the_rule(make_one: Make) -> None:
    bids = A.sample(500, torch.Generator().manual_seed(3)).double()
    hot, cold = (make_one(A, temperature=temperature).double() for temperature in (0.2, 1e-5))
    assert audit(Relaxed(hot), A, "fast", samples=50).regret_max <= 1e-7
    assert float(utility(bids, hot.relaxed(bids)).min()) >= -1e-12
    assert float(revenue(hot(bids)).mean()) != pytest.approx(float(revenue(hot.relaxed(bids)).mean()), rel=1e-2)
    assert float(revenue(cold(bids)).mean()) == pytest.approx(float(revenue(cold.relaxed(bids)).mean()), rel=1e-3)


@BOTH
def test_training_earns_more_than_the_best_reserves(make_one: Make) -> None:
    """Which earns 5/6; the best menus of this size earn about .87."""
    mechanism = LotteryAMA(A, 64, 0.01, 4.0) if make_one is lottery else AMenuNet(A, 64, 0.01, 1, 32, 4, 20.0)
    optimizer = lambda parameters: torch.optim.Adam(parameters, lr=0.05 if make_one is lottery else 3e-3)  # noqa: E731
    fit(make(300, mechanism=mechanism, regret=NoRegret(), optimizer=optimizer, data=FreshSamples(), batch=128))
    values = A.sample(50_000, torch.Generator().manual_seed(4))
    with torch.no_grad():
        assert float(revenue(mechanism(values)).mean()) > 0.85


@BOTH
def test_engines_and_populations_see_the_relaxation(make_one: Make) -> None:
    runs = []
    for engine in (Eager(), Traced()):
        module = make(6, mechanism=make_one(A), regret=NoRegret()).double()
        module.data.sample = module.data.sample.double()
        module.engine = engine
        runs.append(fit(module))
    for one, other in zip(runs[0].mechanism.parameters(), runs[1].mechanism.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-9)
    members = [make_one(A, seed) for seed in range(2)]
    bids = torch.rand(2, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    alone = [member.relaxed(own) for member, own in zip(members, bids, strict=True)]
    together = Stacked(members).relaxed(bids)
    for k, outcome in enumerate(alone):
        assert torch.allclose(together.payment[k], outcome.payment, atol=1e-6)


@pytest.mark.parametrize("name", ["lottery_ama", "sparsemax_regretnet"])
def test_a_run_is_audited_and_resumes_exactly(
    cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = ("train.py", f"mechanism={name}", "iterations=30", *SMALL)
    answer = cli(*run, "hydra.run.dir=whole")
    assert answer.code == 0, answer.err
    content = result(tmp_path / "whole")
    truthful = name != "sparsemax_regretnet"
    assert ("truthful by construction" in " ".join(answer.out.split())) == truthful
    assert (content["mechanism"], content["regret_mode"]) == (name, "none" if truthful else "climbing")
    assert (content["audit"]["regret_max"] < 1e-9) == truthful
    assert ("narrow_strips" in content["audit"]["flags"]) == (not truthful)
    with monkeypatch.context() as patched:
        draw = FixedSample.__call__
        patched.setattr(FixedSample, "__call__", lambda self, t: draw(self, t) if t < 22 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cli(*run, "hydra.run.dir=parts")
    resumed = cli(*run, "hydra.run.dir=parts", "resume=auto")
    assert resumed.code == 0, resumed.err
    assert "continued after iteration 20" in " ".join(resumed.out.split())
    assert same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("mechanism=lottery_ama", "mechanism.entries=0"),
            "entries must be null or a whole number of at least 1, got 0",
        ),
        (("mechanism=lottery_ama", "mechanism.temperature=0.0"), "temperature must be a positive number, got 0.0"),
        (("mechanism=lottery_ama", "mechanism.spread=-1.0"), "spread must be a positive number, got -1.0"),
        (("mechanism=amenunet", "mechanism.heads=3"), "width must be a multiple of heads, got 64 and 3"),
        (("mechanism=amenunet", "depth=0"), "depth must be a whole number of at least 1, got 0"),
        (("mechanism=sparsemax_regretnet", "mechanism.levels=0"), "levels must be a whole number of at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(cli: Callable[..., Answer], arguments: tuple[str, ...], message: str) -> None:
    answer = cli("train.py", *arguments, *SMALL)
    assert answer.code != 0
    assert message in answer.err
