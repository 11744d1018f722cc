"""The sweep files of Weights & Biases: what an agent would do with them."""

import itertools
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import ROOT, SMALL
from tests.test_config import composed
from tests.test_wandb import Recorded, read_back
from truthful.app import build
from truthful.app.runs import run_folder
from truthful.results import discounted_revenue

FILES = sorted((ROOT / "sweeps").glob("*.yaml"))
TINY = (*SMALL[:-1], "iterations=45", "rmax.samples=8", "rmax.every=0.5", "engine=eager")


def opened(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text())


def ends(parameter: dict[str, Any]) -> list[Any]:
    """All values of a parameter, or the ends of its range."""
    if "value" in parameter:
        return [parameter["value"]]
    return parameter.get("values") or [parameter["min"], parameter["max"]]


def draw(parameter: dict[str, Any], dice: random.Random) -> Any:
    kind = parameter.get("distribution", "categorical")
    low, high = parameter.get("min"), parameter.get("max")
    return {
        "categorical": lambda: dice.choice(ends(parameter)),
        "uniform": lambda: dice.uniform(low, high),
        "int_uniform": lambda: dice.randint(low, high),
        "log_uniform_values": lambda: math.exp(dice.uniform(math.log(low), math.log(high))),
    }[kind]()


def command(sweep: dict[str, Any], point: dict[str, Any]) -> list[str]:
    """What an agent executes."""
    macros = {
        "${env}": ["/usr/bin/env"],
        "${interpreter}": [sys.executable],
        "${program}": [str(ROOT / sweep["program"])],
        "${args_no_hyphens}": [f"{key}={entry}" for key, entry in point.items()],
    }
    return [part for chunk in sweep["command"] for part in macros.get(chunk, [chunk])]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_a_sweep_file_says_what_it_asks_and_how_to_decide(file: Path) -> None:
    first, second = file.read_text().splitlines()[:2]
    assert first.startswith("# ")
    assert first.endswith("?")
    assert second.startswith("# Decide: ")
    sweep = opened(file)
    assert (sweep["name"], sweep["program"]) == (file.stem, "train.py")
    assert sweep["command"][:3] == ["${env}", "${interpreter}", "${program}"]
    assert sweep["method"] == "grid" or sweep["run_cap"] <= 100  # else it would never end


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_every_point_of_a_sweep_composes(file: Path) -> None:
    sweep, dice = opened(file), random.Random(0)
    parameters = sweep["parameters"]
    points = list(itertools.product(*map(ends, parameters.values())))
    points += [tuple(draw(parameter, dice) for parameter in parameters.values()) for _ in range(5)]
    for point in points:
        config = composed(*command(sweep, dict(zip(parameters, point, strict=True)))[3:])
        for part in ("regret", "rmax"):
            build(config, part)
        build(config, "dual", n_bidders=2)
        assert config["audit"]["seed"] != 0  # whose profiles reports are on
        assert config["rmax"]["_target_"].endswith("CalibratedBudget")


def test_hyperband_has_audits_to_judge_by() -> None:
    sweep = opened(ROOT / "sweeps" / "search.yaml")
    config, stopping = composed("experiment=tuning"), sweep["early_terminate"]
    audits = math.ceil(config["iterations"] / config["trainer"]["audit_every"]) - 1
    bands = [stopping["min_iter"] * stopping["eta"] ** k for k in range(9)]
    assert sum(band <= audits for band in bands) >= 2


@pytest.fixture(scope="module")
def agent_run(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A small run of a corner of `search`, as an agent starts it, without network."""
    sweep, folder = opened(ROOT / "sweeps" / "search.yaml"), tmp_path_factory.mktemp("agent")
    point = {key: ends(parameter)[0] for key, parameter in sweep["parameters"].items()}
    parameters = folder / "parameters.yaml"
    parameters.write_text(yaml.safe_dump({"wandb_version": 1, **{key: {"value": point[key]} for key in point}}))
    agent = {"RUN_ID": "run7", "SWEEP_ID": "sweep7", "PROJECT": "theirs", "SWEEP_PARAM_PATH": str(parameters)}
    environment = {**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    environment |= {f"WANDB_{name}": entry for name, entry in agent.items()}
    done = subprocess.run(
        [*command(sweep, point), *TINY], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    (recorded,) = read_back(folder)
    return recorded


def test_what_an_agent_starts_runs_as_the_agent_says(agent_run: Recorded) -> None:
    assert (agent_run.run["run_id"], agent_run.run["project"]) == ("run7", "theirs")
    config = agent_run.run["config"]["update"]
    assert (config["optimizer.lr"], config["cfg"]["optimizer"]["lr"]) == (0.001, 0.001)
    folder = agent_run.folder.parent.parent / "multirun" / "sweep7" / agent_run.run["display_name"]
    assert folder.name.endswith("_run7")
    assert (folder / "result.json").exists()


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_the_metric_of_a_sweep_is_logged(file: Path, agent_run: Recorded) -> None:
    metric = opened(file)["metric"]["name"]
    logged = [item for item in agent_run.history if metric in item]
    assert len(logged) == (4 if metric.startswith("held_out/") else 1)  # after 10, 20, 30, 40 iterations; at the end
    assert all(math.isfinite(item[metric]) for item in logged)


def test_an_agent_may_try_the_same_parameters_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = {"setting": "c", "regret": "local"}
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    folders = set()
    for name in "xy":
        monkeypatch.setenv("WANDB_RUN_ID", name)
        folders.add(run_folder("auto", choices, ["depth=3"]))
    assert folders == {"multirun/s/c_local_depth-3_x", "multirun/s/c_local_depth-3_y"}
    assert run_folder("outputs/z", choices, []) == "outputs/z"


def test_discounted_revenue_is_earned_by_a_truthful_auction() -> None:
    """One bidder who chose with mistakes from a menu: with discounts he chooses for himself, and pays at least that."""
    dice = torch.Generator().manual_seed(0)
    chances = torch.rand(30, 2, generator=dice)
    price = chances.sum(-1) * torch.rand(30, generator=dice)
    utility = torch.rand(2000, 2, generator=dice) @ chances.T - price
    for noise in (0.0, 0.01, 0.1):
        chosen = (utility + noise * torch.rand(utility.shape, generator=dice)).argmax(-1)
        regret = (utility.max(-1).values - utility.gather(-1, chosen[:, None])[:, 0]).mean()
        revenue = price[chosen].mean()
        share = (regret / revenue).sqrt()
        own = (utility + share * price).argmax(-1)
        assert (1 - share) * price[own].mean() >= discounted_revenue(float(revenue), float(regret)) - 1e-6
    assert discounted_revenue(0.9, 0.0) == pytest.approx(0.9)
    assert discounted_revenue(0.1, 0.2) == discounted_revenue(-0.1, 0.0) == 0
