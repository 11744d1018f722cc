"""A budget on audited regret: what corrects it, that nothing else changes, and what the result says of it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import SMALL
from tests.test_population import member
from tests.test_training import fit, make
from truthful.calibration import COARSE, FACTORS, SETTLING, CalibratedBudget
from truthful.duals import AugmentedLagrangian
from truthful.population_training import PopulationModule
from truthful.results import budget_summary
from truthful.training import AuctionModule

HIGH = {"start": 1.0, "end": 0.1}
"""Budgets that an untrained network is near to."""


def calibrated(**changes: Any) -> CalibratedBudget:
    arguments = {"start": 1e-2, "end": 1e-3, "fraction": 0.5, "every": 0.2, "samples": 8, "gain": 0.5}
    return CalibratedBudget(**{**arguments, **changes})


def finds(ratio: float) -> Callable[[int], float]:
    return lambda samples: ratio


def corrected(budget: CalibratedBudget, **changes: Any) -> float:
    """Training's budget towards the end, after a correction; of a fast dual and a constant rate by default."""
    arguments = {"progress": 0.8, "rate_left": 0.0, "training": 2e-4, "pace": math.inf, "audit": finds(1e-3)}
    budget.correct(**{**arguments, **changes})
    return budget(0.8)


def test_the_budget_moves_by_what_the_audit_is_off() -> None:
    """Where the dual is fast the budget is what training finds, times the share of the gap that is to be closed."""
    budget = calibrated()
    assert budget(0.0) == 1e-2
    assert corrected(budget, audit=finds(4e-3)) == pytest.approx(2e-4 / 4**0.5)
    assert corrected(budget) == pytest.approx(2e-4)
    assert corrected(budget, audit=finds(0.5e-3)) == pytest.approx(2e-4 * 2**0.5)
    assert budget.metrics() == pytest.approx({"rmax_factor": 0.2 * 2**0.5, "audited_ratio": 0.5e-3})


def test_regret_may_be_higher_while_the_rate_has_to_fall() -> None:
    assert corrected(calibrated(), rate_left=0.1) == pytest.approx(2e-4 * (1 + 0.1 * SETTLING) ** 0.5)


def test_a_slow_dual_is_led_further() -> None:
    lead = [math.log(2e-4 / corrected(calibrated(), audit=finds(2e-3), pace=pace)) for pace in (math.inf, 2.0)]
    assert lead[1] == pytest.approx(lead[0] / (1 - math.exp(-0.4)))


@pytest.mark.parametrize(("training", "audited", "pace"), [(1e-9, 1.0, 0.0), (0.0, 0.0, 1e-3), (1.0, 1e-6, 0.0)])
def test_no_audit_takes_the_budget_out_of_bounds(training: float, audited: float, pace: float) -> None:
    factor = corrected(calibrated(), training=training, audit=finds(audited), pace=pace) / 1e-3
    assert FACTORS[0] * 0.999 <= factor <= FACTORS[1] * 1.001


def test_audits_are_coarse_while_the_budget_falls() -> None:
    seen: list[int] = []
    for progress in (0.2, 0.6):
        corrected(calibrated(samples=100), progress=progress, audit=lambda samples: seen.append(samples) or 1e-3)
    assert seen == [100 // COARSE, 100]


@pytest.mark.parametrize("speed", [10.0, 0.5, 0.2])
def test_a_fooled_search_ends_at_the_audited_budget(speed: float) -> None:
    """Training's ratio relaxes to its budget, fast or slowly; the audit finds up to 8 times as much."""
    budget, training = calibrated(every=0.025), 2e-2
    for k in range(40):
        progress, audited = k / 40, (4 + 4 * k / 40) * training
        if k:
            corrected(budget, progress=progress, training=training, pace=40 * speed, audit=finds(audited))
        training *= (budget(progress) / training) ** (1 - math.exp(-speed))
    assert 8 * training == pytest.approx(1e-3, rel=0.03)


def test_corrections_fall_on_their_iterations() -> None:
    budget = calibrated()
    assert [budget.next_correction(t, 50) for t in (0, 9, 10, 39, 40, 49)] == [10, 10, 20, 40, 50, 50]
    assert calibrated(every=0.01).next_correction(0, 7) == 1


def states(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: state.clone() for name, state in module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(state, other[name]) for name, state in one.items())


def test_log_every_changes_no_number() -> None:
    runs = [states(fit(make(20, rmax=calibrated(**HIGH), log_every=log_every))) for log_every in (3, 50)]
    assert same(runs[0], runs[1])
    assert float(runs[0]["rmax.factor"]) not in (1.0, 10.0, 1e-6)


def test_an_audit_changes_only_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrections that say nothing new leave training as it is, and torch's own generator, too."""
    plain, audited = make(20, rmax=calibrated(**HIGH).shape), make(20, rmax=calibrated(**HIGH))
    monkeypatch.setattr(CalibratedBudget, "correct", lambda self, *numbers: numbers[-1](4))
    generators = []
    for module in (plain, audited):
        torch.manual_seed(0)
        fit(module)
        generators.append(torch.get_rng_state())
    assert torch.equal(*generators)
    own = states(audited)
    assert same({name: own[name] for name in states(plain)}, states(plain))
    assert 0 < audited.calibration_seconds < audited.clock.seconds


@pytest.mark.parametrize("stop", [8, 11])
def test_a_calibrated_run_continues_exactly(stop: int, tmp_path: Path) -> None:
    """Stopped at a correction and between two."""

    def fresh() -> AuctionModule:
        return make(20, rmax=calibrated(**HIGH), log_every=1)

    whole, half = fit(fresh()), fit(fresh(), last=stop)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    continued = fit(fresh(), checkpoint=tmp_path / "half.ckpt")
    assert half.iteration == stop
    assert same(states(whole), states(continued))
    assert continued.calibration_seconds > half.calibration_seconds > 0


def test_members_have_budgets_of_their_own() -> None:
    members = [member(seed, rmax=calibrated(start=1.0, end=end)) for seed, end in ((0, 0.1), (1, 0.1), (2, 0.2))]
    population = fit(PopulationModule(members))
    factors = [float(own.rmax.factor) for own in members]
    assert len(set(factors)) == 3
    assert population.metrics["rmax_factor"] == pytest.approx(sum(factors) / 3)
    alone = fit(member(1, rmax=calibrated(**HIGH)))
    assert float(alone.rmax.factor) == pytest.approx(factors[1], rel=1e-6)


def test_it_needs_a_dual_with_a_budget() -> None:
    dual = AugmentedLagrangian(2, multiplier=0.0, rho=1.0, update_every=20, rho_growth=0.0, rho_every=1000)
    with pytest.raises(ValueError, match="rmax=calibrated steers a budget, and AugmentedLagrangian has none"):
        make(5, rmax=calibrated(**HIGH), dual=dual)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every": 0.0}, "rmax.every must be above 0"),
        ({"gain": 1.5}, "rmax.gain must be above 0 and at most 1"),
        ({"samples": 1}, "rmax.samples must be a whole number"),
        ({"end": 1.0}, "rmax.end must not be above rmax.start"),
    ],
)
def test_a_wrong_calibration_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrated(**changes)


def test_whether_a_budget_is_met() -> None:
    audit = {"regret_ratio": 1.05e-3, "regret": 4e-4, "regret_se": 1.2e-5, "revenue": 0.8, "revenue_se": 0.032}
    summary = budget_summary(1e-3, audit)
    assert summary["ci"] == pytest.approx([1.05e-3 * (1 - 1.96 * 0.05), 1.05e-3 * (1 + 1.96 * 0.05)])
    assert (summary["within"], summary["met"]) == (True, True)
    low, high = (budget_summary(1e-3, {**audit, "regret_ratio": ratio}) for ratio in (0.5e-3, 1.2e-3))
    assert [(part["within"], part["met"]) for part in (low, high)] == [(False, True), (False, False)]
    assert budget_summary(None, audit) is None
    assert budget_summary(1e-3, {**audit, "regret_ratio": None}) is None


def test_the_command_line_says_whether_it_was_met(cli, tmp_path: Path) -> None:
    small = (*SMALL, "iterations=10", "setting=a", "engine=eager", "rmax.end=1e-3")
    answer = cli("train.py", *small, "rmax=calibrated", "rmax.samples=8", "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    assert "budget on audited regret: " in answer.out
    content = json.loads((tmp_path / "run" / "result.json").read_text())
    assert content["budget"]["target"] == 1e-3
    assert content["budget"]["ratio"] == content["audit"]["regret_ratio"]
    assert 0 < content["train"]["calibration_seconds"] < content["train"]["seconds"]
    again = cli("evaluate.py", "run=run", "audit=fast", "audit.samples=8", "logger=none", "hydra.run.dir=again")
    assert "budget on audited regret: " in again.out
    refused = cli("train.py", *small, "rmax=calibrated", "dual=augmented_lagrangian", "hydra.run.dir=refused")
    assert (refused.code, "AugmentedLagrangian has none" in refused.err) == (1, True)
