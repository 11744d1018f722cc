"""Studies: two objectives, several workers, and nothing lost when they are killed."""

import random
import signal
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

import study
from tests.conftest import CONF, SMALL, Answer, result, same, start
from truthful.app.studies import composing, read_declaration
from truthful.errors import UserError
from truthful.study import Audited, Choice, Interval, Pruning, Stage, Trials, Whole, audits

Cli = Callable[..., Answer]
RULE = Pruning(audits=9, after=0.3, others=3, patience=2, least=0.5)
FRONT = [Audited(0.80, 0.001), Audited(0.85, 0.002), Audited(0.90, 0.004)]
needs_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="optuna is not installed")


@pytest.mark.parametrize(
    ("own", "stopped"),
    [
        ({40: Audited(0.84, 0.003), 50: Audited(0.84, 0.003)}, True),  # behind in both, twice
        ({40: Audited(0.84, 0.003), 50: Audited(0.84, 0.0015)}, False),  # less regret the second time
        ({40: Audited(0.86, 0.009), 50: Audited(0.86, 0.009)}, False),  # earns more than the median
        ({50: Audited(0.84, 0.003)}, False),  # once
        ({20: Audited(0.84, 0.003), 50: Audited(0.84, 0.003)}, False),  # the first does not count yet
        ({40: Audited(0.84, 0.003), 60: Audited(0.84, 0.003)}, False),  # nobody to compare with after 60
        ({40: Audited(0.1, 0.0), 50: Audited(0.1, 0.0)}, True),  # sells next to nothing
    ],
)
def test_a_trial_is_stopped_when_others_leave_it_behind_in_both_objectives(
    own: dict[int, Audited], stopped: bool
) -> None:
    others = [{20: point, 40: point, 50: point} for point in FRONT]
    assert (RULE.stops(own, others, iterations=100) is not None) is stopped
    assert RULE.stops(own, others[:2], iterations=100) is None


def test_what_no_other_beats_is_never_stopped() -> None:
    draw = random.Random(0)
    rule = Pruning(audits=9, after=0.0, others=1, patience=1, least=0.0)
    count = 0
    for _ in range(2000):
        own, *others = [Audited(draw.random(), draw.random()) for _ in range(draw.randint(2, 9))]
        if rule.stops({1: own}, [{1: other} for other in others], iterations=1):
            count += 1
            assert any(other.revenue > own.revenue and other.regret < own.regret for other in others)
    assert count > 100


def test_a_study_is_read_in_hydra_s_grammar() -> None:
    declared = read_declaration(
        ["study=climbing", "dual.rate=0.2", "depth=range(2,6,2)", "rmax=linear,anneal", "batch=int(interval(8,64))"],
        CONF,
    )
    assert declared.axes == {
        "optimizer.lr": Interval(1e-3, 2e-2, log=True),
        "rmax.end": Interval(1e-4, 2e-3, log=True),
        "depth": Whole(2, 4, step=2, log=False),
        "rmax": Choice(("linear", "anneal")),
        "batch": Whole(8, 64, step=1, log=False),
    }
    assert declared.fixed["dual.rate"] == "dual.rate=0.2"
    assert declared.fixed["audit.seed"] == "audit.seed=1000"
    assert declared.folder.name.startswith("study-climbing_dual.rate-0.2_depth-range")
    assert len(declared.corners()) == 32
    assert Interval(1.23446e-3, 2.0, log=True).typed(1.23446e-3) == "0.00123446"  # never outside
    assert Interval(1e-3, 2.0, log=True).typed(1.23456e-3) == "0.001235"


MISTAKES = [
    ("study=climb", "there is no study=climb; did you mean climbing?; options: climbing, local_persistent"),
    ("", "study=<name> is missing"),
    ("study=climbing setting=a,b", "cannot vary setting: revenue in one setting says nothing about another"),
    ("study=climbing seed=0,1", "cannot vary seed: a study would choose the luckiest"),
    ("study=climbing audit.seed=0", "trials are audited on profiles of their own"),
    ("study=climbing rmax.end=interval(2e-3,1e-3)", "rmax.end: a range must go up, got one from 0.002 to 0.001"),
    ("study=climbing rmax.end=tag(log,interval(0,1))", "rmax.end: a logarithmic range must be above 0"),
    (
        "study=climbing rmax.end=interval(1e-3,5)",
        "rmax.end must not be above rmax.start, got start=0.02 and end=5.0 (at ",
    ),
    ("study=climbing depth=choice(2)", "depth: a choice needs at least two different options"),
    ("study=climbing depth=glob(*)", "depth: a study takes interval(...), range(...) and lists"),
    ("study=climbing study.trials=0", "study.trials must be a whole number of at least 1, got 0"),
    ("study=climbing study.pruning.after=2.5", "study.pruning.after must be at least 0 and below 1, got 2.5"),
    ("study=climbing hydra.run.dir=x", "hydra.run.dir= is not for studies"),
    ("study=climbing -m", "study.py takes study=<name> and overrides, got -m"),
    ("study=climbing regret.reach=interval(-1,1)", "reach must be"),
]


@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES, ids=[mistake[0] for mistake in MISTAKES])
def test_a_mistake_is_answered_before_any_trial(arguments: str, sentence: str) -> None:
    with pytest.raises(UserError) as error, composing(CONF) as compose:
        study.check_corners(read_declaration(arguments.split(), CONF), compose)
    assert sentence in str(error.value)


@pytest.mark.parametrize("file", sorted((CONF / "study").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_works_at_its_ends_and_begins_with_the_recipe(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert "?" in lines[0]
    assert any(line.startswith(f"# Run: python study.py study={file.stem}") for line in lines)
    declared = read_declaration([f"study={file.stem}", "data.samples=1280"], CONF)
    with composing(CONF) as compose:
        study.check_corners(declared, compose)
        assert declared.first(*compose(list(declared.fixed.values()))) is not None


AXES = {"lr": Interval(1e-3, 1.0, log=True), "rule": Choice(("x", "y"))}


def opened(folder: Path, first: dict[str, object] | None = None, declared: str = "same") -> Trials:
    return Trials(folder / "study", AXES, {"what": declared}, first)


@needs_optuna
def test_several_workers_get_each_trial_once(tmp_path: Path) -> None:
    claimed: list[int] = []

    def work() -> None:
        trials = opened(tmp_path)
        while claim := trials.claim(12, "_".join):
            claimed.append(claim.number)
            time.sleep(random.Random(claim.number).random() / 50)
            trials.complete(claim, 1.0, 0.1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(claimed) == list(range(12))


@needs_optuna
def test_trials_end_in_different_ways(tmp_path: Path) -> None:
    first = opened(tmp_path, {"lr": 0.5, "rule": "y"})
    other = opened(tmp_path)
    recipe = first.claim(4, "_".join)
    assert recipe is not None
    assert recipe.overrides == ("lr=0.5", "rule=y")
    second = other.claim(4, "_".join)
    assert second is not None
    assert second.number == 1
    recipe.lock.release()  # as when its process dies
    again = other.claim(4, "_".join)
    assert again is not None
    assert (again.number, again.resumed, again.overrides) == (0, True, recipe.overrides)
    other.complete(again, 0.9, 0.01)
    other.prune(second, "behind")
    first.study.enqueue_trial({"lr": 0.5, "rule": "y"})
    last = first.claim(4, "_".join)
    assert last is not None
    assert last.number == 3
    first.fail(last, "NaN")
    assert first.claim(4, "_".join) is None
    outcomes = other.outcomes()
    assert [outcome.stage for outcome in outcomes] == [Stage.COMPLETE, Stage.PRUNED, Stage.FAIL, Stage.FAIL]
    assert [outcome.reason for outcome in outcomes] == ["", "behind", "tried already, as trial 0", "NaN"]
    assert other.best() == {0}
    with pytest.raises(UserError, match="is another one: what is same there and another here"):
        opened(tmp_path, declared="another")


@needs_optuna
def test_where_trials_only_fail_no_more_are_begun(tmp_path: Path) -> None:
    trials = opened(tmp_path)
    for _ in range(3):
        claim = trials.claim(9, "_".join)
        assert claim is not None
        trials.fail(claim, "no space left")
    with pytest.raises(UserError, match=r"all of the first 3 trials failed.* no space left"):
        trials.claim(9, "_".join)


TINY = ("study=climbing", *(entry for entry in SMALL if "audit_every" not in entry and "logger" not in entry))
TINY += ("engine=eager", "depth=2", "audit.revenue_samples=null")


@needs_optuna
def test_a_killed_worker_s_trial_is_finished_by_another_with_the_same_numbers(cli: Cli, tmp_path: Path) -> None:
    """Two commands at once; kill -9 the first, whose run lives on for a moment: the second finishes both trials."""
    command = ("study.py", *TINY, "iterations=300", "study.trials=2", "study.pruning=null")

    def checkpoints() -> list[Path]:
        """Of trial 0, which is the first command's; the second may be faster."""
        name = "a_climbing_dual.rate-0.1_optimizer.lr-0.005_rmax.end-0.00055"
        return list(tmp_path.glob(f"multirun/*/{name}/checkpoints/last.ckpt"))

    (tmp_path / read_declaration(command[1:], CONF).folder).mkdir(parents=True)  # its ends are not tried again
    one = start(*command, cwd=tmp_path)
    while not list(tmp_path.glob("multirun/*/study.db")):
        assert one.poll() is None, one.communicate()[1]
        time.sleep(0.05)
    two = start(*command, cwd=tmp_path)
    while len(checkpoints()) < 1:
        assert one.poll() is None, one.communicate()[1]
        time.sleep(0.01)
    one.kill()
    one.communicate()
    (folder,) = {path.parent.parent for path in checkpoints()}
    out, err = two.communicate(timeout=300)
    assert two.returncode == 0, err
    assert "trial 0 goes on: optimizer.lr=0.005 dual.rate=0.1 rmax.end=0.00055" in out
    assert "2 complete" in out
    logs = sorted(tmp_path.glob("multirun/*/*/output.log"))
    assert [path.read_text().count("trained in") for path in logs] == [1, 1]
    assert list(tmp_path.glob("multirun/*/front.png"))
    assert "python evaluate.py run=[multirun/" in out
    overrides = [entry for entry in TINY if "study" not in entry]
    fixed = ("regret=climbing", "iterations=300", "audit.seed=1000", "hydra.run.dir=alone", "logger=none")
    assert cli("train.py", *overrides, *fixed).code == 0
    assert same(folder, tmp_path / "alone")
    assert result(folder)["config_hash"] == result(tmp_path / "alone")["config_hash"]
    assert result(folder)["audit"]["regret"] == result(tmp_path / "alone")["audit"]["regret"]


@needs_optuna
def test_a_trial_that_is_left_behind_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (*TINY, "iterations=100", "study.trials=10", "optimizer.lr=0.005,1e-9", "dual.rate=0.1", "rmax.end=1e-3")
    rule = ("study.pruning.others=1", "study.pruning.patience=1", "study.pruning.least=0.999")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["study.py", *command, *rule])
    handler = signal.getsignal(signal.SIGTERM)
    study.main()
    signal.signal(signal.SIGTERM, handler)
    out = capsys.readouterr().out
    assert "trial 0 of 10: optimizer.lr=0.005\n" in out
    assert " stopped early: revenue " in out
    assert "1 complete, 1 stopped early, 8 failed" in out
    (stopped,) = tmp_path.glob("multirun/*/*optimizer.lr-1e-09")
    assert not (stopped / "result.json").exists()
    assert 30 <= max(audits(stopped)) < 100
