"""The primal-dual iteration: against a loop reference, against stored losses, and where it must stop."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console

from tests.conftest import CONF, network
from truthful.app import plain
from truthful.app.runs import register_resolvers
from truthful.data import FixedSample, FreshSamples
from truthful.duals import Budget
from truthful.regret import AdamStep, GradientAscent, SearchedRegret, TruthfulStart
from truthful.schedules import AnnealedBudget, ConstantRate, CosineRate
from truthful.settings import UniformBox
from truthful.training import AuctionModule, TrainingDiverged

GOLDEN = Path(__file__).parent / "golden" / "losses.json"
EXPERIMENTS = ("released_standard_a", "released_local_persistent_d", "released_local_e", "printed_local_c")


def make(iterations: int, **changes: Any) -> AuctionModule:
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    arguments: dict[str, Any] = {
        "mechanism": network(setting),
        "setting": setting,
        "regret": SearchedRegret(GradientAscent(1, AdamStep(0.05)), TruthfulStart(), True, True, False),
        "dual": Budget(2, 0.1, 10.0),
        "rmax": AnnealedBudget(0.01, 1e-4, 2 / 3),
        "optimizer": partial(torch.optim.Adam, lr=1e-3, eps=1e-7),
        "lr_schedule": ConstantRate(),
        "data": FixedSample(64),
        "batch": 16,
        "seed": 0,
        "clip_norm": None,
        "log_every": 5,
    }
    return AuctionModule(**{**arguments, **changes}, iterations=iterations)


class StopAt(lightning.Callback):
    """Stops training in the middle."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        trainer.should_stop = trainer.should_stop or pl_module.iteration >= self.iteration


def fit(module: Any, accelerator: str = "cpu", last: int | None = None, checkpoint: Path | None = None) -> Any:
    """Train, from a checkpoint if there is one, to iteration `last` or to the end."""
    lightning.Trainer(
        accelerator=accelerator,
        devices=1,
        max_epochs=-1,
        logger=False,
        callbacks=[] if last is None else [StopAt(last)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, ckpt_path=checkpoint, weights_only=True)
    return module


def test_training_is_the_loop_of_the_paper() -> None:
    """Twelve iterations, three epochs, written out bidder by bidder and without the package's own functions."""
    iterations = 12
    module = make(iterations)
    mechanism, sample = network(module.setting), module.data.sample.clone()
    mechanism.load_state_dict(module.mechanism.state_dict())
    kept = sample.clone()
    optimiser = torch.optim.Adam(mechanism.parameters(), lr=1e-3, eps=1e-7)
    multiplier, budget = 10.0, 0.01
    for t in range(iterations):
        rows = module.data(t)[1]
        values = sample[rows]

        def lie(i: int, misreport: torch.Tensor, values: torch.Tensor = values) -> torch.Tensor:
            bids = values.clone()
            bids[:, i] = misreport
            outcome = mechanism(bids)
            return (values[:, i] * outcome.allocation[:, i]).sum(-1) - outcome.payment[:, i]

        for i in range(2):
            misreport = kept[rows][:, i].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(lie(i, misreport).sum(), misreport)
            kept[rows, i] = (misreport + 0.05 * gradient / (gradient.abs() + 1e-7)).detach().clamp(0, 1)
        outcome = mechanism(values)
        honest = (values * outcome.allocation).sum(-1) - outcome.payment
        regret = torch.stack([(lie(i, kept[rows, i]) - honest[:, i]).relu().mean() for i in range(2)])
        revenue = outcome.payment.sum(-1).mean()
        optimiser.zero_grad()
        (-revenue + multiplier * regret.sum()).backward()
        optimiser.step()
        ratio = max(float((regret.sum() / revenue).detach()), 1e-9)
        multiplier = max(0.0, multiplier + 0.1 * (math.log(ratio) - math.log(budget)))
        budget = max(1e-4, budget * (1e-4 / 0.01) ** (1.5 / iterations))
    fit(module)
    assert int(module.completed) == iterations
    assert float(module.dual.multiplier) == pytest.approx(multiplier, rel=1e-4)
    assert torch.allclose(module.regret.kept, kept, atol=1e-5)
    for ours, reference in zip(module.mechanism.parameters(), mechanism.parameters(), strict=True):
        assert torch.allclose(ours, reference, atol=1e-5)
    assert float(module.history[iterations - 1, 0]) == pytest.approx(float(revenue.detach()), abs=1e-5)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_losses_of_an_experiment_have_not_moved(experiment: str) -> None:
    """Revenue and regret of 50 iterations. To accept a change: python -m tests.test_training."""
    expected = json.loads(GOLDEN.read_text())[experiment]
    assert losses(experiment) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def losses(experiment: str) -> list[float]:
    from train import build_module

    register_resolvers()
    changes = ["iterations=50", "data.samples=1280", "optimizer.fused=false"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(compose("config", overrides=[f"experiment={experiment}", *changes]))
    module = build_module(config, Console(quiet=True)).double()  # rounding differs from machine to machine
    module.data.sample = module.data.sample.double()
    fit(module)
    return [*module.history[:50:7].flatten().tolist(), float(module.dual.multiplier)]


def test_the_learning_rate_follows_its_schedule_and_the_misreport_step_does_not(monkeypatch) -> None:
    rates, lengths = [], []
    module = make(
        10,
        lr_schedule=CosineRate(0.0),
        regret=SearchedRegret(GradientAscent(1, AdamStep(0.05)), TruthfulStart(), True, True, False),
    )
    adam = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self, *a, **k: (rates.append(self.param_groups[0]["lr"]), adam(self, *a, **k))[1],
    )
    call = AdamStep.__call__
    monkeypatch.setattr(
        AdamStep, "__call__", lambda self, *a: (lengths.append(call(self, *a)[0].abs().max()), call(self, *a))[1]
    )
    fit(module)
    assert rates == pytest.approx([1e-3 * (1 + math.cos(math.pi * t / 10)) / 2 for t in range(10)])
    assert [float(length) for length in lengths] == pytest.approx([0.05] * 10, rel=1e-3)


def test_clipping_bounds_the_gradient() -> None:
    module = fit(make(5, clip_norm=1e-3, dual=Budget(2, 0.1, 1000.0)))
    assert module.metrics["gradient_norm"] > 1e-3  # measured before clipping
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in module.mechanism.parameters()])
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)
    with pytest.raises(ValueError, match=r"trainer\.clip_norm must be a positive number"):
        make(5, clip_norm=-1.0)


def test_a_fixed_local_step_with_a_decaying_rate_is_warned_about() -> None:
    local = SearchedRegret(GradientAscent(1, AdamStep(0.05)), TruthfulStart(), False, True, False)
    with pytest.warns(UserWarning, match="honest exactly at that step"):
        make(5, lr_schedule=CosineRate(0.0), regret=local)


def test_a_nan_stops_training_at_its_iteration() -> None:
    module = make(20, data=FixedSample(320))
    poisoned = module.data(7)[1]
    module.data.sample[poisoned] = float("nan")
    with pytest.raises(TrainingDiverged, match="iteration 8 "):
        fit(module)


def test_fresh_samples_train() -> None:
    module = make(
        7,
        data=FreshSamples(),
        regret=SearchedRegret(GradientAscent(1, AdamStep(0.05)), TruthfulStart(), False, True, False),
    )
    assert int(fit(module).completed) == 7
    assert module.metrics["revenue"] > 0


def test_a_negative_learning_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="optimizer: Invalid learning rate: -1"):
        make(5, optimizer=partial(torch.optim.Adam, lr=-1.0))


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({experiment: losses(experiment) for experiment in EXPERIMENTS}, indent=1) + "\n")
