"""Weights & Biases, read back from the files that it writes offline."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import SMALL, Answer, start
from truthful.data import FixedSample
from truthful.logging import _has_key

Cli = Callable[..., Answer]
FEW = ("audit=fast", "audit.samples=8")
LOGGED = (*SMALL[:-1], "logger=[wandb,csv]")
SHORT = (*LOGGED, "setting=uniform_2x1", "trainer.audit_every=0")
"""Without pictures of two items, and without audits."""


@dataclass(frozen=True)
class Recorded:
    """What W&B has of one session of a run."""

    folder: Path
    records: list[dict[str, Any]]

    def every(self, kind: str) -> list[dict[str, Any]]:
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def run(self) -> dict[str, Any]:
        return self.every("run")[0]

    @property
    def history(self) -> list[dict[str, Any]]:
        return [entry["item"] for entry in self.every("history")]

    @property
    def keys(self) -> set[str]:
        """What was logged, pictures and tables by the name that they were logged under."""
        return {key.removesuffix("._type") for item in self.history for key in item}

    @property
    def exit_code(self) -> int:
        (end,) = self.every("exit")
        return int(end.get("exit_code", 0))

    def table(self, key: str) -> list[dict[str, Any]]:
        """The last table logged under the key, a dict a row."""
        path = [item[f"{key}.path"] for item in self.history if f"{key}.path" in item][-1]
        content = json.loads((self.folder / "files" / path).read_text())
        return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def read_back(folder: Path) -> list[Recorded]:
    """Every session under the folder, the oldest first."""
    leet, found = [sys.executable, "-m", "wandb", "leet", "inspect", "--json"], []
    for run in sorted((folder / "wandb").glob("offline-run-*")):
        printed = subprocess.run([*leet, run], capture_output=True, text=True, check=True)
        found.append(Recorded(run, [json.loads(line) for line in printed.stdout.splitlines()]))
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A run whose search is exploited and whose budget is missed, as it is easily in 30 iterations."""
    folder = tmp_path_factory.mktemp("wandb")
    changed = ("rmax=calibrated", "rmax.samples=8", "rmax.every=0.5", "rmax.end=1e-6", "trainer.exploitation=1e-3")
    process = start("train.py", "iterations=30", "hydra.run.dir=run", *LOGGED, "tags=[mine]", *changed, cwd=folder)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "W&B offline: look at it with `wandb leet`" in out
    (recorded,) = read_back(folder)
    return recorded


NUMBERS = (
    *("revenue", "regret", "regret_sum", "regret_ratio", "regret_bidder_1", "multiplier", "rmax", "audited_ratio"),
    *("learning_rate", "gradient_norm", "iterations_per_second", "iteration"),
    *(f"held_out/{name}" for name in ("revenue", "regret", "discounted_revenue", "exploitation", "distance")),
    *(f"audit/{name}" for name in ("revenue", "regret", "regret_max", "discounted_revenue", "exploitation")),
    *(f"budget/{name}" for name in ("target", "ratio", "met")),
)
PICTURES = ("allocation", "regret_map", "regret_tail", "regret_found")
TABLES = ("audit/table", "audit/flags", "audit/revenue_regret_table")


def test_a_run_can_be_read_back_offline(trained: Recorded) -> None:
    assert set(NUMBERS) | set(PICTURES) | set(TABLES) <= trained.keys
    assert trained.exit_code == 0
    for picture in PICTURES:
        shown = [item for item in trained.history if f"{picture}.path" in item]
        assert len(shown) == (3 if picture == "allocation" else 1)  # at iterations 10, 20 and at the end
        assert all((trained.folder / "files" / item[f"{picture}.path"]).exists() for item in shown)
    assert [row["profiles"] for row in trained.table("audit/revenue_regret_table")] == ["held_out", "held_out", "audit"]
    (audit,) = trained.table("audit/table")
    last = {key: entry for item in trained.history for key, entry in item.items()}
    assert audit["regret_max"] == last["audit/regret_max"]
    assert (trained.folder.parent.parent / "run" / "metrics" / "version_0" / "metrics.csv").exists()


def test_the_default_page_is_readable(trained: Recorded) -> None:
    assert (trained.run["display_name"], trained.run["job_type"]) == ("run", "train")
    assert trained.run["tags"] == ["a", "climbing", "mine"]
    config = trained.run["config"]["update"]
    assert (config["setting"], config["regret"], config["seed"]) == ("a", "climbing", 0)
    assert config["cfg"]["dual"]["rate"] == 0.1
    axes = {metric.get("name", metric.get("glob_name")): metric for metric in trained.every("metric")}
    assert axes["*"]["step_metric"] == "iteration"
    assert axes["iteration"]["options"]["hidden"]
    assert axes["trainer/global_step"]["options"]["hidden"]
    chart = next(entry for entry in trained.every("config") if "audit/revenue_regret" in str(entry))
    assert {"x": "regret", "y": "revenue"} in [
        entry["panel_config"]["fieldSettings"] for entry in chart["update"].values()
    ]


def test_a_person_is_alerted(trained: Recorded) -> None:
    alerts = {alert["title"]: alert for alert in trained.every("alert")}
    assert alerts.keys() == {"training search exploited", "budget missed"}
    assert "its budget 1e-06" in alerts["budget missed"]["text"]
    assert {alert["level"] for alert in alerts.values()} == {"WARN"}


@pytest.mark.filterwarnings("ignore:.*Pydantic V1 style.*")
def test_the_dashboard_shows_what_is_logged(trained: Recorded) -> None:
    pytest.importorskip("wandb_workspaces", reason="the dashboard needs pip install -r requirements-extra.txt")
    import dashboard

    page, shared = dashboard.workspace("p", "e", "table1"), dashboard.report("p", "e", None)
    view = page._to_model().model_dump(by_alias=True)["spec"]["section"]
    shown = set(dashboard.COLUMNS)
    for section in view["panelBankConfig"]["sections"]:
        for panel in section["panels"]:
            config = panel["config"]
            shown |= {*(config.get("metrics") or ()), *(config.get("mediaKeys") or ())}
            shown |= {config[axis].removeprefix("summary:") for axis in ("xAxis", "yAxis") if config.get(axis)}
    assert {"multiplier", "rmax", "audit/regret", "allocation"} <= shown <= trained.keys
    assert "table1" in str(view["runSets"][0]["filters"])
    tables = [panel for panels in dashboard.sections().values() for panel in panels if hasattr(panel, "table_name")]
    assert {panel.table_name for panel in tables} <= trained.keys
    assert len(shared.blocks) == 1 + 2 * len(dashboard.sections())


def test_an_evaluation_is_a_run_of_its_own(cli: Cli, tmp_path: Path) -> None:
    answer = cli("evaluate.py", "mechanism=first_price", "setting=a", *FEW, "logger=[wandb,csv]", "hydra.run.dir=e")
    assert answer.code == 0, answer.err
    (recorded,) = read_back(tmp_path)
    assert (recorded.run["job_type"], recorded.run["tags"]) == ("evaluate", ["a", "first_price"])
    assert {"audit/regret_p99", "audit/flags", "regret_map"} <= recorded.keys
    assert "audit/regret" in (tmp_path / "e" / "metrics" / "version_0" / "metrics.csv").read_text()


def test_runs_of_a_sweep_are_a_group(cli: Cli, tmp_path: Path) -> None:
    answer = cli("train.py", "-m", "seed=0,1", "iterations=5", *SHORT)
    assert answer.code == 0, answer.err
    (sweep,) = (tmp_path / "multirun").iterdir()
    runs = [recorded.run for recorded in read_back(tmp_path)]
    assert [run["run_group"] for run in runs] == [sweep.name] * 2
    assert {run["display_name"] for run in runs} == {path.parent.name for path in sweep.rglob("result.json")}
    assert len({run["run_id"] for run in runs}) == 2


@pytest.mark.usefixtures("nan_at_iteration_23")
def test_a_run_that_diverged_shows_as_failed(cli: Cli, tmp_path: Path) -> None:
    assert cli("train.py", "iterations=40", "hydra.run.dir=run", *SHORT).code == 1
    (recorded,) = read_back(tmp_path)
    assert recorded.exit_code == 1
    (alert,) = recorded.every("alert")
    assert (alert["title"], alert["level"]) == ("run failed", "ERROR")
    assert "a NaN or an infinity appeared at iteration 23" in alert["text"]


def test_a_run_that_was_killed_while_training_shows_as_failed_until_it_goes_on(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = FixedSample.__call__

    def killed(self: FixedSample, iteration: int) -> tuple[torch.Tensor, slice | None]:
        if iteration == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(self, iteration)

    monkeypatch.setattr(FixedSample, "__call__", killed)
    assert cli("train.py", "iterations=20", "hydra.run.dir=run", *SHORT).code == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert cli("train.py", "resume=run").code == 0
    first, second = read_back(tmp_path)
    assert (first.exit_code, second.exit_code) == (130, 0)
    assert first.run["run_id"] == second.run["run_id"]


def test_a_run_that_was_killed_after_training_shows_as_failed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("truthful.audit_plots.save_pictures", killed)
    before = signal.getsignal(signal.SIGTERM)
    assert cli("train.py", "iterations=5", "hydra.run.dir=run", *SHORT).code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    (recorded,) = read_back(tmp_path)
    assert (recorded.exit_code, recorded.every("alert")) == (143, [])


@pytest.mark.parametrize(
    ("key", "error"), [("no_key_at_all", "AuthenticationError"), ("0" * 40, "CommError")], ids=["bad key", "no network"]
)
def test_wandb_that_cannot_start_is_one_sentence(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, key: str, error: str
) -> None:
    import wandb

    def fail(**_: object) -> None:
        raise getattr(wandb.errors, error)("no\nanswer")

    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setattr(wandb, "init", fail)
    answer = cli("train.py", "iterations=10", "hydra.run.dir=run", *SMALL[:-1], "logger=wandb")
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert "W&B could not start (no answer); use logger.wandb.mode=offline or logger=csv" in answer.err


@pytest.mark.parametrize(
    ("machine", "found"), [("api.forge.coreweave.com", True), ("api.wandb.ai", True), ("elsewhere.com", False)]
)
def test_a_key_is_found_where_login_puts_it(
    machine: str, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine {machine} login user password {'0' * 40}\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert _has_key() is found
