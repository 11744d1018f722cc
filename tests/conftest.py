"""What tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from truthful.auditing import audit, journal
from truthful.data import FixedSample, Valuations
from truthful.mechanisms import Mechanism, RegretNet
from truthful.regret import RegretMode
from truthful.settings import Setting, UniformBox

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"

SMALL = (
    "data.samples=640",
    "batch=32",
    "trainer.log_every=5",
    "trainer.checkpoint_every=10",
    "trainer.audit_every=10",
    "trainer.audit_samples=4",
    "audit.samples=8",
    "logger=none",
)
"""Overrides that make a run take a second."""

sys.path.insert(0, str(ROOT))
torch.set_num_threads(1)  # two stall on a busy machine, and hardly help at these sizes


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a root script in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_API_KEY", "WANDB_MODE", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))

    def run(script: str, *arguments: str) -> Answer:
        import baselines
        import bounds
        import evaluate
        import explore
        import train
        from truthful.app import run_script

        modules = (train, evaluate, bounds, baselines, explore)
        module = {f"{module.__name__}.py": module for module in modules}[script]
        monkeypatch.setattr(sys, "argv", [str(ROOT / script), *arguments])
        config = "config" if script == "train.py" else script.removesuffix(".py")
        code = 0
        capfd.readouterr()
        try:
            run_script(module.main, CONF, config, usage=module.__doc__)
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return run


def start(script: str, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Start a root script as its user does."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "HYDRA_"))}
    environment |= {"OMP_NUM_THREADS": "1", "NETRC": str(cwd / "no_netrc")}
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def poison(monkeypatch: pytest.MonkeyPatch, data: type[Valuations]) -> None:
    """A NaN at iteration 23."""
    draw = data.__call__

    def poisoned(self: Valuations, iteration: int) -> tuple[torch.Tensor, slice | None]:
        values, rows = draw(self, iteration)
        return (values * float("nan") if iteration == 22 else values), rows

    monkeypatch.setattr(data, "__call__", poisoned)


@pytest.fixture
def nan_at_iteration_23(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, FixedSample)


@contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[None]:
    """Whoever trains on a fixed sample inside hits Ctrl-C when iteration `at`, from 0, draws its batch."""
    draw = FixedSample.__call__

    def stopped(self: FixedSample, iteration: int) -> tuple[torch.Tensor, slice | None]:
        if iteration == at:
            raise KeyboardInterrupt
        return draw(self, iteration)

    with monkeypatch.context() as patch:
        patch.setattr(FixedSample, "__call__", stopped)
        yield


def interrupt_audit(mechanism: Mechanism, setting: Setting, path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Hit Ctrl-C in an audit (strong, 30 profiles, seed 0) that keeps its parts in `path`; the shares it had told."""
    monkeypatch.setattr(journal, "SECONDS_BETWEEN_SAVES", 0.0)
    seen: list[float] = []

    def stop(part: str, share: float) -> None:
        seen.append(share)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(mechanism, setting, "strong", 30, 0, journal=path, progress=stop)
    assert path.exists()
    return seen


def network(
    setting: Setting, seed: int = 0, depth: int = 2, scale: float = 1.0, unit_demand_scores: int = 2
) -> RegretNet:
    """A small RegretNet with random parameters, `scale` times as large as usual."""
    mechanism = RegretNet(
        **setting.shape, depth=depth, width=16, activation=torch.nn.Tanh(), unit_demand_scores=unit_demand_scores
    )
    mechanism.initialise(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in mechanism.parameters():
            parameter.mul_(scale)
    return mechanism


def regret_mode(name: str) -> RegretMode:
    """A mode as conf/regret/<name>.yaml has it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose("config", overrides=[f"regret={name}"]).regret)


def blank_network() -> RegretNet:
    """One bidder, one item, two hidden units, every parameter 0: for what a test plants in it."""
    mechanism = RegretNet(1, 1, "additive", depth=1, width=2, activation=torch.nn.Tanh(), unit_demand_scores=2)
    with torch.no_grad():
        for parameter in mechanism.parameters():
            parameter.zero_()
    return mechanism


@pytest.fixture
def two_by_two() -> UniformBox:
    """Setting (a)."""
    return UniformBox(2, 2, 0.0, 1.0, "additive")
