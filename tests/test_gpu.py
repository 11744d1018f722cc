"""On a GPU: the same numbers as on the CPU, whichever engine computes them. Skipped where there is none."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import SMALL, interrupt_audit, interrupted, network, regret_mode, result
from tests.test_engine import MODE_NAMES
from tests.test_training import fit, make
from truthful.audit_plots import save_pictures
from truthful.auditing import audit
from truthful.engine import CudaGraph, Eager, Engine
from truthful.loop import TrainingLoop
from truthful.mechanisms import SparsemaxRegretNet
from truthful.optimizers import Soap
from truthful.population_training import PopulationModule
from truthful.settings import UniformBox
from truthful.training import AuctionModule

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
ADDITIVE = UniformBox(2, 2, 0.0, 1.0, "additive")


def precise(iterations: int, engine: Engine, seed: int = 0, **changes: Any) -> AuctionModule:
    module = make(iterations, mechanism=network(ADDITIVE, seed, scale=2.0), seed=seed, **changes).double()
    module.data.sample = module.data.sample.double()
    module.engine = engine
    return module


def agree(one: torch.nn.Module, other: torch.nn.Module, atol: float) -> None:
    theirs = other.state_dict()
    for name, state in one.state_dict().items():
        assert torch.allclose(state.cpu(), theirs[name].cpu(), rtol=0, atol=atol), name


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_a_graph_is_eager_and_a_gpu_is_a_cpu(mode: str) -> None:
    runs = [
        fit(precise(8, engine, regret=regret_mode(mode)), accelerator)
        for engine, accelerator in ((Eager(), "cpu"), (Eager(), "gpu"), (CudaGraph(), "gpu"))
    ]
    assert runs[2].engine.name == "cuda_graph"
    assert float(runs[0].history[7, 1]) > 0
    for run in runs[1:]:
        agree(run, runs[0], 1e-9)


def test_a_population_is_its_members() -> None:
    population = PopulationModule([precise(8, Eager(), seed, regret=regret_mode("climbing")) for seed in range(3)])
    population.engine = CudaGraph()
    fit(population, "gpu")
    assert population.engine.name == "cuda_graph"
    for seed, member in enumerate(population.members):
        agree(member, fit(precise(8, Eager(), seed, regret=regret_mode("climbing"))), 1e-9)


def test_soap_in_a_graph_is_soap() -> None:
    soap = partial(Soap, lr=3e-3, betas=[0.9, 0.9], eps=1e-7, memory=0.95, every=4)
    runs = [fit(precise(20, engine, optimizer=soap), "gpu") for engine in (Eager(), CudaGraph())]
    agree(*runs, 1e-9)


@pytest.mark.parametrize("members", [1, 2])
def test_a_run_continues_exactly(members: int, tmp_path: Path) -> None:
    def fresh() -> TrainingLoop:
        alone = [make(40, regret=regret_mode("climbing"), mechanism=network(ADDITIVE, k)) for k in range(members)]
        module = alone[0] if members == 1 else PopulationModule(alone)
        module.engine = CudaGraph()
        return module

    whole, half = fit(fresh(), "gpu"), fit(fresh(), "gpu", last=15)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    continued = fit(fresh(), "gpu", checkpoint=tmp_path / "half.ckpt")
    assert {module.engine.name for module in (whole, half, continued)} == {"cuda_graph"}
    agree(continued, whole, 0)


@pytest.mark.parametrize("tier", ["fast", "strong", "paper", "certified"])
def test_an_audit_finds_the_same(tier: str, tmp_path: Path) -> None:
    mechanism = network(ADDITIVE, scale=2.0).double()
    reports = [audit(mechanism.to(device), ADDITIVE, tier, 12, 3) for device in ("cpu", "cuda")]
    cpu, gpu = (report.as_dict() for report in reports)
    assert gpu["regret"] > 0
    for number in ("revenue", "regret", "regret_max"):
        assert gpu[number] == pytest.approx(cpu[number], abs=1e-5)
    reports[1].save_misreports(tmp_path / "misreports.npz")
    assert save_pictures(reports[1], mechanism.float(), ADDITIVE, tmp_path)


def test_an_interrupted_audit_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mechanism, path = network(ADDITIVE, scale=2.0).cuda(), tmp_path / "audit.partial"
    interrupt_audit(mechanism, ADDITIVE, path, monkeypatch)
    continued = audit(mechanism, ADDITIVE, "strong", 30, 0, journal=path)
    assert continued.device == "cuda"
    assert continued.regret == audit(mechanism, ADDITIVE, "strong", 30, 0).regret
    assert audit(mechanism.cpu(), ADDITIVE, "strong", 30, 0, journal=path).device == "cpu"


def test_sparsemax_is_certified_there_too() -> None:
    mechanism = SparsemaxRegretNet(ADDITIVE, depth=1, width=8, levels=3)
    mechanism.initialise(torch.Generator().manual_seed(0))
    uppers = []
    for device in ("cpu", "cuda"):
        proven = audit(mechanism.to(device), ADDITIVE, "certified", 4, 3).certificate
        assert proven is not None
        uppers.append(proven["all_reports"]["regret_upper"])
    assert uppers[0] > 0
    assert uppers[1] == pytest.approx(uppers[0], rel=1e-6)


def test_a_run_on_the_gpu(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = ("train.py", *SMALL, "trainer.accelerator=gpu", "engine=cuda_graph", "iterations=40")
    whole = cli(*common, "hydra.run.dir=whole")
    assert whole.code == 0, whole.err
    assert result(tmp_path / "whole")["train"]["engine"] == "cuda_graph"
    with interrupted(monkeypatch, at=25):
        assert cli(*common, "hydra.run.dir=half").code != 0
    assert cli("train.py", "resume=half").code == 0
    assert result(tmp_path / "half")["audit"]["regret"] == result(tmp_path / "whole")["audit"]["regret"]
    there = ("evaluate.py", "audit=fast", "audit.samples=8", "trainer.accelerator=gpu")
    for what in (("run=whole",), ("mechanism=ama", "setting=a"), ("mechanism=second_price", "setting=a")):
        answer = cli(*there, *what, f"hydra.run.dir={what[0]}")
        assert answer.code == 0, answer.err
        assert result(tmp_path / what[0])["audit"]["device"] == "cuda"
