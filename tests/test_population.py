"""Members of a population are what they would be alone."""

import json
import math
from functools import partial
from typing import Any

import pytest
import torch

from tests.conftest import CONF, SMALL, network, regret_mode
from tests.test_engine import MODES
from tests.test_training import fit, make
from truthful.duals import Budget
from truthful.engine import Eager
from truthful.population import Stacked
from truthful.population_training import PopulationModule
from truthful.schedules import ConstantBudget, CosineRate
from truthful.settings import UniformBox
from truthful.training import AuctionModule, TrainingDiverged


def member(seed: int, mode: str = "local_persistent", iterations: int = 20, **changes: Any) -> AuctionModule:
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    parts = {"mechanism": network(setting, seed), "regret": MODES[mode](), "dual": Budget(2, 0.1, 10.0), "seed": seed}
    module = make(iterations, **{**parts, **changes}).double()
    module.data.sample = module.data.sample.double()
    return module


@pytest.mark.parametrize("demand", ["additive", "unit"])
def test_stacked_mechanisms_answer_as_each_does(demand: str) -> None:
    setting = UniformBox(2, 3, 0.0, 1.0, demand)
    members = [network(setting, seed, scale=2.0) for seed in range(3)]
    bids = torch.rand(3, 5, 4, 2, 3)
    alone = [mechanism(own) for mechanism, own in zip(members, bids, strict=True)]
    together = Stacked(members)(bids)
    for k, outcome in enumerate(alone):
        assert torch.allclose(together.allocation[k], outcome.allocation, atol=1e-6)
        assert torch.allclose(together.payment[k], outcome.payment, atol=1e-6)
    with torch.no_grad():
        next(iter(Stacked(members).parameters()))[1].fill_(0.5)
    assert bool((next(members[1].parameters()) == 0.5).all())
    assert not bool((next(members[0].parameters()) == 0.5).any())


@pytest.mark.parametrize("mode", ["local", "local_persistent", "standard"])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_members_equal_their_twins(mode: str, clip_norm: float | None) -> None:
    changes: list[dict[str, Any]] = [
        {"rmax": ConstantBudget(1e-3)},
        {"rmax": ConstantBudget(1e-2), "lr_schedule": CosineRate(0.0)},
        {"optimizer": partial(torch.optim.Adam, lr=3e-3, eps=1e-7), "dual": Budget(2, 0.5, 1.0)},
    ]
    population = PopulationModule(
        [member(seed, mode, clip_norm=clip_norm, **change) for seed, change in enumerate(changes)]
    )
    fit(population)
    assert population.iteration == 20
    changes[2]["dual"] = Budget(2, 0.5, 1.0)
    for seed, change in enumerate(changes):
        twin = fit(member(seed, mode, clip_norm=clip_norm, **change))
        own = population.members[seed]
        assert int(own.completed) == 20
        for name, state in twin.state_dict().items():
            assert torch.allclose(state, own.state_dict()[name], rtol=0, atol=1e-9), name
        assert own.metrics["revenue"] == pytest.approx(twin.metrics["revenue"], abs=1e-9)
        mean = own.optimizer.state_dict()["state"][0]["exp_avg"]
        assert torch.allclose(mean, twin.optimizer.state_dict()["state"][0]["exp_avg"], rtol=0, atol=1e-9)


SHARED = sorted({path.stem for path in (CONF / "regret").glob("*.yaml")} - {"misreporter", "none"})


@pytest.mark.parametrize(("mode", "n_bidders"), [*((mode, 2) for mode in SHARED), ("probing", 1), ("climbing", 1)])
def test_every_mode_can_be_shared_by_a_population(mode: str, n_bidders: int) -> None:
    def alone(seed: int) -> AuctionModule:
        setting = UniformBox(n_bidders, 2, 0.0, 1.0, "additive")
        parts = {"setting": setting, "mechanism": network(setting, seed), "dual": Budget(n_bidders, 0.1, 10.0)}
        return member(seed, iterations=4, regret=regret_mode(mode), **parts)

    population = fit(PopulationModule([alone(0), alone(1)]))
    for seed in range(2):
        twin = fit(alone(seed)).state_dict()
        for name, state in population.members[seed].state_dict().items():
            assert torch.allclose(state, twin[name], rtol=0, atol=1e-9), name


def test_a_search_that_learns_is_not_shared() -> None:
    with pytest.raises(ValueError, match="regret=misreporter needs population=1"):
        PopulationModule([member(seed, regret=regret_mode("misreporter")) for seed in range(2)])


def test_a_member_that_diverges_is_given_up() -> None:
    members = [member(seed) for seed in range(3)]
    members[1].data.sample.fill_(math.nan)
    population = fit(PopulationModule(members))
    assert list(population.failed) == [1]
    assert "NaN" in population.failed[1]
    assert int(members[2].completed) == 20
    assert members[2].is_finite()
    assert math.isfinite(population.metrics["revenue"])
    for own in members:
        own.data.sample.fill_(math.nan)
    with pytest.raises(TrainingDiverged, match=r"seed 0: .*seed 2: "):
        fit(PopulationModule([member_with_nan(seed) for seed in (0, 2)]))


def member_with_nan(seed: int) -> AuctionModule:
    module = member(seed)
    module.data.sample.fill_(math.nan)
    return module


def test_a_population_needs_adam() -> None:
    members = [member(seed, optimizer=partial(torch.optim.SGD, lr=0.1)) for seed in range(2)]
    population = PopulationModule(members)
    population.engine = Eager()
    with pytest.raises(ValueError, match=r"a population needs optimizer=adam, .* got SGD"):
        fit(population)


def test_a_population_from_the_command_line(cli, tmp_path) -> None:
    small = (*SMALL, "iterations=20", "setting=a", "engine=eager")
    vary = "vary={rmax.end:[1e-4,2e-4]}"
    answer = cli("train.py", *small, "population=2", "seed=5", vary, "hydra.run.dir=both")
    assert answer.code == 0, answer.err
    assert "seed 5 to 6, 2 networks at once" in " ".join(answer.out.split())
    assert "the same profiles" in " ".join(answer.out.split())
    twin = cli("train.py", *small, "seed=6", "rmax.end=2e-4", "hydra.run.dir=alone")
    assert twin.code == 0, twin.err
    own = json.loads((tmp_path / "both" / "member_6" / "result.json").read_text())
    alone = json.loads((tmp_path / "alone" / "result.json").read_text())
    assert own["config_hash"] == alone["config_hash"]
    assert own["seed"] == 6
    assert own["train"]["population"] == 2
    assert own["train"]["completed"] == 20
    assert own["audit"]["revenue"] == pytest.approx(alone["audit"]["revenue"], abs=1e-3)
    whole = json.loads((tmp_path / "both" / "result.json").read_text())
    assert [entry["seed"] for entry in whole["members"]] == [5, 6]
    assert whole["members"][1]["regret"] == own["audit"]["regret"]
    again = cli("evaluate.py", "run=both/member_6", "audit=fast", "audit.samples=8", "logger=none")
    assert again.code == 0, again.err
    parent = cli("evaluate.py", "run=both", "audit=fast", "audit.samples=8", "logger=none", "hydra.run.dir=parent")
    assert (parent.code, "name a member: run=<folder>/member_<seed>" in " ".join(parent.err.split())) == (1, True)
    done = cli("train.py", *small, "population=2", "seed=5", vary, "hydra.run.dir=both", "resume=auto")
    assert (done.code, "is complete" in done.out) == (0, True)


@pytest.fixture
def interrupted(cli, monkeypatch):
    """Run train.py and interrupt it after ten iterations."""
    from truthful.callbacks import Checkpoints

    def run(*arguments: str) -> None:
        save = Checkpoints._save

        def interrupt(self, trainer, module) -> None:
            save(self, trainer, module)
            module.interrupted = module.iteration == 10

        monkeypatch.setattr(Checkpoints, "_save", interrupt)
        assert cli("train.py", *arguments).code == 130
        monkeypatch.setattr(Checkpoints, "_save", save)

    return run


def test_the_engine_and_threads_of_a_run_are_used_again(cli, interrupted, tmp_path) -> None:
    interrupted(*SMALL, "iterations=20", "setting=a", "engine=eager", "hydra.run.dir=run")
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["engine"] == {"name": "eager", "threads": 1, "population": 1, "devices": 1, "device": "cpu"}
    checkpoint["engine"]["threads"] = 2
    torch.save(checkpoint, path)
    try:
        answer = cli("train.py", "resume=run", "engine=compiled")
    finally:
        torch.set_num_threads(1)
    assert answer.code == 0, answer.err
    assert "eager, 2 threads" in answer.out
    train = json.loads((tmp_path / "run" / "result.json").read_text())["train"]
    assert (train["engine"], train["threads"], train["compile_seconds"]) == ("eager", 2, 0.0)


def test_an_interrupted_population_continues_exactly(cli, interrupted, tmp_path) -> None:
    small = (*SMALL, "iterations=20", "setting=a", "engine=eager", "population=2")
    assert cli("train.py", *small, "hydra.run.dir=whole").code == 0
    interrupted(*small, "hydra.run.dir=half")
    assert cli("train.py", "resume=half").code == 0
    for seed in (0, 1):
        states = [
            torch.load(tmp_path / run / f"member_{seed}" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
            for run in ("whole", "half")
        ]
        assert all(torch.equal(state, states[1][name]) for name, state in states[0].items())


def test_a_population_killed_before_its_results_has_them_afterwards(cli, tmp_path) -> None:
    small = (*SMALL, "iterations=20", "setting=a", "engine=eager", "population=2")
    assert cli("train.py", *small, "hydra.run.dir=run").code == 0
    results = [tmp_path / "run" / part / "result.json" for part in ("", "member_1")]
    before = [json.loads(path.read_text()) for path in results]
    for path in results:
        path.unlink()
    assert cli("train.py", "resume=run").code == 0
    after = [json.loads(path.read_text()) for path in results]
    assert after[0]["members"] == before[0]["members"]
    assert after[1]["audit"]["revenue"] == before[1]["audit"]["revenue"]
    assert after[1]["train"] == before[1]["train"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["population=0"], "population must be a whole number of at least 1, got 0"),
        (["population=2", "vary={rmax.end:[1e-4]}"], r"vary.rmax.end must be a list of 2 entries, one a member"),
        (["population=2", "vary={batch:[1,2]}"], "vary cannot vary batch; it can vary rmax.start, rmax.end"),
        (["population=2", "vary=3"], "vary must map keys to lists"),
    ],
)
def test_a_wrong_population_is_refused(cli, overrides: list[str], message: str) -> None:
    answer = cli("train.py", *SMALL, "iterations=5", *overrides)
    assert answer.code == 1
    assert message in " ".join(answer.err.split())


def test_every_key_that_members_may_differ_in_exists() -> None:
    from train import VARIABLE

    text = " ".join(path.read_text() for group in ("rmax", "optimizer", "dual") for path in (CONF / group).glob("*"))
    assert all(f"\n{key.split('.')[1]}:" in text for key in VARIABLE)
