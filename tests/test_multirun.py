"""Sweeps: the same command does what is left, whoever stopped it and whatever failed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict, read_write

from tests.conftest import CONF, ROOT, SMALL, Answer, result, same, start
from truthful.app import plain
from truthful.app.composing import Composer
from truthful.app.runs import register_resolvers
from truthful.data import FixedSample
from truthful.results import config_hash
from truthful.sweeps import read_manifest

Cli = Callable[..., Answer]
TINY = ("iterations=24", "sweep=smoke", *SMALL[:-2])


def test_a_multirun_has_a_folder_for_each_job(cli: Cli, tmp_path: Path) -> None:
    answer = cli("train.py", "-m", "setting=a,d", "regret=local,standard", "iterations=3", *SMALL)
    assert answer.code == 0, answer.err
    assert len(list((tmp_path / "multirun").iterdir())) == 1
    results = [json.loads(path.read_text()) for path in tmp_path.rglob("result.json")]
    assert sorted((content["setting"], content["regret_mode"]) for content in results) == [
        ("a", "local"),
        ("a", "standard"),
        ("d", "local"),
        ("d", "standard"),
    ]
    d_local = next(c for c in results if (c["setting"], c["regret_mode"]) == ("d", "local"))
    assert d_local["rmax"]["end"] == 1e-4


def test_a_sweep_goes_on_where_it_was_interrupted(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, drawn = FixedSample.__call__, []

    def interrupted(self: FixedSample, iteration: int) -> tuple[torch.Tensor, slice | None]:
        drawn.append(iteration)
        if drawn.count(17) == 2:  # in the second job
            drawn.clear()
            os.kill(os.getpid(), signal.SIGINT)
        return draw(self, iteration)

    monkeypatch.setattr(FixedSample, "__call__", interrupted)
    assert cli("train.py", *TINY).code == 130
    folder = tmp_path / "multirun" / "smoke"
    assert [path.parent.name for path in folder.rglob("result.json")] == [name(folder, "standard")]
    drawn.clear()
    again = cli("train.py", *TINY)
    assert again.code == 0, again.err
    assert "2 jobs in multirun/smoke: 1 finished, 1 begun; 1 to do" in again.out
    assert drawn[0] == 18
    assert {result(path.parent)["regret_mode"] for path in folder.rglob("result.json")} == {"standard", "local"}


def name(folder: Path, regret: str) -> str:
    (found,) = folder.glob(f"a_{regret}_*")
    return found.name


def test_a_failing_job_leaves_the_others_alone_and_is_run_again_when_asked(cli: Cli, tmp_path: Path) -> None:
    command = ("train.py", *TINY, "regret=local,standard,local_persistent", "setting=two_intervals")
    answer = cli(*command)
    assert answer.code == 1
    assert len(list(tmp_path.rglob("result.json"))) == 1
    assert answer.err.count(" failed: ") == 2
    assert "train.py: of 3 jobs in multirun/smoke: 2 failed" in answer.err
    assert "Traceback" not in answer.err
    assert answer.out.count("failed: a local regret") == answer.err.count("failed: a local regret") == 2
    failure = next(tmp_path.rglob("failed.json"))
    first = failure.read_text()
    again = cli(*command)
    assert again.code == 1
    assert "1 finished, 2 failed; 0 to do" in again.out
    assert again.out.count("retry=true") == 2
    assert failure.read_text() == first
    retried = cli(*command, "retry=true")
    assert "1 finished, 2 failed; 2 to do" in retried.out
    assert failure.read_text() != first
    job = next(job for job in read_manifest(tmp_path / "multirun" / "smoke") if job.folder == failure.parent)
    assert job.error == json.loads(first)["error"]


def test_an_unexpected_error_fails_its_job_only(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = FixedSample.__call__

    def broken(self: FixedSample, iteration: int) -> tuple[torch.Tensor, slice | None]:
        if not list(tmp_path.rglob("result.json")):
            return draw(self, iteration)
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(FixedSample, "__call__", broken)
    answer = cli("train.py", *TINY)
    assert answer.code == 1
    assert "a_local_" in answer.err
    assert "failed: planted\n" in answer.err
    assert "Traceback" in answer.err  # it is a mistake of ours: show where
    assert "train.py: of 2 jobs in multirun/smoke: 1 failed" in answer.err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert cli("train.py", *TINY, "retry=true").code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("engine=eager,compiled",), "two jobs of the sweep would give the same numbers: engine=eager and"),
        (("resume=outputs/x",), "resume= names one run; a sweep goes on with all of its own by itself"),
        (("retry=maybe",), "retry must be true or false, got 'maybe'"),
        (("hydra.sweep.subdir=x",), "hydra.sweep.subdir cannot be chosen"),
        (("hydra/launcher=jobli",), "there is no hydra/launcher=jobli, or it is not installed"),
        (("regret=standard,locl",), "there is no regret=locl; did you mean local?"),
    ],
)
def test_mistakes_are_answered_before_the_first_job(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    answer = cli("train.py", *TINY, *arguments)
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert sentence in answer.err
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_sweep_grows(cli: Cli, tmp_path: Path) -> None:
    assert cli("train.py", *TINY).code == 0
    grown = cli("train.py", *TINY, "seed=0,1", "regret=local")
    assert "2 jobs in multirun/smoke: 1 finished, 1 not begun; 1 to do" in grown.out
    jobs = read_manifest(tmp_path / "multirun" / "smoke")
    assert len(jobs) == 3
    assert all(result(job.folder)["config_hash"] == job.config_hash for job in jobs)


def test_a_run_folder_is_one_process_s(tmp_path: Path) -> None:
    arguments = ("regret=local", *SMALL, "engine=eager", "hydra.run.dir=run", "resume=auto")
    first = start("train.py", *arguments, "iterations=100000", cwd=tmp_path)
    try:
        while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists():
            assert first.poll() is None, first.communicate()[1]
            time.sleep(0.05)
        second = start("train.py", *arguments, "iterations=100000", cwd=tmp_path)
        _, err = second.communicate(timeout=120)
        assert (second.returncode, err) == (1, "train.py: another process is at work in run\n")
    finally:
        first.kill()
        first.communicate()


@pytest.fixture
def composer() -> Iterator[Composer]:
    register_resolvers()
    setup_globals()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield Composer(loader, loader.load_configuration("config", [], run_mode=RunMode.MULTIRUN))


@pytest.mark.parametrize(
    "overrides",
    [
        ("setting=d", "regret=standard", "seed=3"),
        ("setting=c", "regret=curriculum", "depth=4", "rmax.end=1e-3", "mechanism/activation=relu"),
        ("experiment=released_local_b", "logger=[wandb,csv]", "setting.n_bidders=3"),
        ("setting=exponential_1x2", "setting.law.mean=2", "recipe=standard", "+trainer.color=blue"),
        ("sweep=modes", "regret.step=gradient", "vary={rmax.end:[1e-4,2e-4]}", "population=2"),
        ("regret=multiscale", "regret/step=gradient", "~rmax.fraction", "dual=augmented_lagrangian"),
    ],
)
def test_jobs_are_composed_as_hydra_does(composer: Composer, overrides: tuple[str, ...]) -> None:
    wanted: object
    try:
        wanted = compose("config", overrides=list(overrides), return_hydra_config=True)
    except Exception as error:
        with pytest.raises(type(error)):
            composer(overrides)
        return
    choices = plain(OmegaConf.create(wanted.hydra.runtime.choices))
    with read_write(wanted), open_dict(wanted):
        del wanted["hydra"]
    for _ in range(2):  # the second is from memory
        config, chosen = composer(overrides)
        assert config == wanted
        assert config_hash(plain(config)) == config_hash(plain(wanted))
        assert chosen == choices


def test_that_500_jobs_are_done_is_found_out_without_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", str(ROOT / "train.py"), "-m", "hydra.sweep.dir=sweep"]
    command += ["setting=a,b,c,d,e", "regret=standard,local", "seed=range(0,50)"]
    jobs = 500
    begin = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert begin.stdout is not None
    assert begin.stdout.readline() == f"{jobs} jobs in sweep: {jobs} not begun; {jobs} to do\n"
    begin.kill()
    begin.communicate()
    for job in read_manifest(tmp_path / "sweep"):
        job.folder.mkdir(exist_ok=True)
        (job.folder / "result.json").write_text(json.dumps({"config_hash": job.config_hash}))
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"{jobs} jobs in sweep: {jobs} finished; 0 to do" in done.stdout
    assert time.perf_counter() - begun < 60
    assert "omegaconf" in done.stderr
    assert " torch" not in done.stderr


@pytest.mark.skipif(find_spec("joblib") is None, reason="hydra-joblib-launcher is not installed")
def test_a_killed_parallel_sweep_ends_with_the_same_numbers(cli: Cli, tmp_path: Path) -> None:
    """Kill -9 the command, whose workers live on for a moment; the same command finishes, each job once."""
    command = ("train.py", *TINY, "seed=0,1", "iterations=100", "trainer.checkpoint_every=5", "regret=local")
    stopped = (*command, "hydra.sweep.dir=stopped", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    sweep = start(*stopped, cwd=tmp_path)
    assert cli(*command, "hydra.sweep.dir=whole").code == 0
    while len(list(tmp_path.glob("stopped/*/checkpoints/last.ckpt"))) < 2 and sweep.poll() is None:
        time.sleep(0.02)
    sweep.kill()
    sweep.wait()
    last = start(*stopped, cwd=tmp_path)
    out, err = last.communicate(timeout=240)
    assert last.returncode == 0, err
    assert "all 2 jobs are finished" in out
    for job in read_manifest(tmp_path / "whole"):
        other = tmp_path / "stopped" / job.folder.name
        assert same(job.folder, other)
        assert result(job.folder)["audit"]["regret"] == result(other)["audit"]["regret"]
        assert (other / "output.log").read_text().count("trained in") == 1
        assert result(other)["command"].endswith("hydra.launcher.n_jobs=2")


@pytest.mark.skipif(find_spec("submitit") is None, reason="hydra-submitit-launcher is not installed")
def test_jobs_run_under_submitit(tmp_path: Path) -> None:
    arguments = ("hydra/launcher=submitit_local", "regret=local", "setting=a,two_intervals")
    sweep = start("train.py", *TINY, *arguments, "iterations=3", cwd=tmp_path)
    out, err = sweep.communicate(timeout=240)
    assert (sweep.returncode, err) == (1, "train.py: of 2 jobs in multirun/smoke: 1 failed\n")
    (finished,) = tmp_path.rglob("result.json")
    assert " ".join(arguments) in json.loads(finished.read_text())["command"]
    assert f"{finished.parent.relative_to(tmp_path)} finished, revenue 0." in out
    assert out.count("failed: a local regret") == 2  # when it does, and at the end
