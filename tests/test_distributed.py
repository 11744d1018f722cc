"""Processes that share each batch train what one process trains; where one is lost, the run can be continued."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from rich.console import Console

from tests.conftest import CONF, ROOT, SMALL, Answer
from truthful import checkpoints
from truthful.app import plain
from truthful.app.runs import register_resolvers
from truthful.callbacks import Checkpoints
from truthful.processes import Helper, helped, receive_task, say_ready, together
from truthful.training import AuctionModule

LEFT_OUT = ("mixture", "misreporter", "none")
"""Those that need their whole batch in one process, and the one without a search."""
LAGRANGIAN = ("dual=augmented_lagrangian", "dual.update_every=2")
CASES: dict[str, tuple[str, ...]] = {
    **{path.stem: (f"regret={path.stem}",) for path in sorted((CONF / "regret").glob("*.yaml"))},
    **{
        f"{name}, lagrangian": (f"regret={name}", *LAGRANGIAN)
        for name in ("climbing", "probing", "standard", "local_persistent")
    },
    "a menu": ("setting=d", "regret=climbing"),
    "clipped": ("trainer.clip_norm=1e-2",),
    "constrained": ("constraint=[total_variation,quota]", "constraint.quota.least=0.4"),
    "calibrated": ("rmax=calibrated", "rmax.every=0.5", "rmax.samples=8"),
}
for mode in LEFT_OUT:
    del CASES[mode]
HELP = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.test_distributed import train_along; train_along()"


def trained(changes: tuple[str, ...], processes: dict[str, Any]) -> AuctionModule:
    """Six iterations, three visits of each profile, in float64: rounding must not hide a mistake."""
    from train import bare_trainer, build_module

    small = ("iterations=6", "batch=32", "data.samples=64", "trainer.log_every=2")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(compose("config", overrides=[*small, *changes]))
    module = build_module(config, Console(quiet=True)).double()
    module.data.sample = module.data.sample.double()
    bare_trainer("cpu", processes, []).fit(module)
    return module


def train_along() -> None:
    """What the second process does."""
    register_resolvers()
    task = receive_task()
    say_ready()
    for changes in task["cases"]:
        trained(tuple(changes), together(task["count"], task["rank"], task["port"]))


@pytest.fixture(scope="module")
def shared() -> dict[str, AuctionModule]:
    """What the first of two processes has in the end, in each case."""
    from train import bare_trainer

    register_resolvers()
    port = find_free_network_port()
    trainer = bare_trainer("cpu", together(2, 0, port), [])
    with helped(trainer, [sys.executable, "-c", HELP], {"cases": list(CASES.values())}):
        return {name: trained(changes, together(2, 0, port)) for name, changes in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one_with_the_joint_batch(shared: dict[str, AuctionModule], name: str) -> None:
    """Weights, multipliers, kept misreports, revenue and regret of every iteration, metrics."""
    two, one = shared[name], trained(CASES[name], together(1))
    assert (two.share.count, one.share.count) == (2, 1)
    state = two.state_dict()
    for key, tensor in one.state_dict().items():
        assert torch.allclose(state[key], tensor, rtol=1e-6, atol=1e-9), key
    for module in (one, two):
        del module.metrics["iterations_per_second"]
    assert two.metrics == pytest.approx(one.metrics, rel=1e-6, abs=1e-9)


def test_a_lost_process_ends_the_run_which_can_be_continued(
    cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill the second process after the first checkpoint, continue with one, compare: what was kept is whole."""
    started: list[Helper] = []
    start, save = Helper.start, Checkpoints._save

    def save_and_kill(self: Checkpoints, trainer: Any, module: AuctionModule) -> None:
        save(self, trainer, module)
        os.kill(started[0].process.pid, signal.SIGKILL)

    monkeypatch.setattr(Helper, "start", lambda *task: started.append(start(*task)) or started[-1])
    arguments = (*SMALL, "regret=local_persistent", "data.samples=64", "iterations=16", "engine=eager")
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_save", save_and_kill)
        answer = cli("train.py", *arguments, "trainer.devices=2", "hydra.run.dir=two")
    assert (answer.code, answer.err.count("\n")) == (1, 1), answer.err
    assert "process 2 of 2 was killed by signal 9; the last good checkpoint is two/checkpoints/last.ckpt" in answer.err
    assert started[0].process.poll() is not None
    assert checkpoints.load(tmp_path / "two" / "checkpoints" / "last.ckpt")["engine"]["devices"] == 2
    assert cli("train.py", "resume=two", "trainer.devices=1").code == 0
    assert cli("train.py", *arguments, "hydra.run.dir=one").code == 0
    one, two = (checkpoints.load(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("one", "two"))
    for key, tensor in one["state_dict"].items():
        assert torch.allclose(two["state_dict"][key], tensor, rtol=1e-3, atol=1e-4), key


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("trainer.devices=3", "batch must be a multiple of trainer.devices, got 32 and 3"),
        ("trainer.devices=0", "trainer.devices must be a whole number of at least 1, got 0"),
        ("trainer.devices=2 regret=mixture", "Mixture needs its whole batch in one process: use trainer.devices=1"),
        ("trainer.devices=2 regret=misreporter", "Misreporter needs its whole batch in one process"),
        ("trainer.devices=2 population=2", "shares the batches of one network, and a population has several"),
        ("trainer.devices=2 trainer.accelerator=gpu", "needs trainer.accelerator=cpu: several GPUs have not been"),
    ],
)
def test_what_cannot_be_shared_is_refused(cli: Callable[..., Answer], arguments: str, sentence: str) -> None:
    answer = cli("train.py", *SMALL, *arguments.split())
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert sentence in answer.err
