"""Tables and pictures of many results."""

import copy
import csv
import io
import json
import math
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import report
from tests.conftest import ROOT, SMALL, Answer
from truthful.ceilings import best_truthful, named_bounds
from truthful.published import TABLE_1
from truthful.report import (
    FORMATS,
    equal_regret,
    find_cards,
    find_learning,
    frontiers,
    known_table,
    make_rows,
    markdown,
    results_table,
)
from truthful.report.choices import differing
from truthful.report.equal_regret import Frontier
from truthful.report.latex import escaped
from truthful.report.rendering import between_marks
from truthful.report.terminal import for_width
from truthful.series import METRICS, MetricsFile, read_metrics

BOUNDS = named_bounds(ROOT / "results" / "bounds")
BEST = best_truthful(ROOT / "results" / "baselines")
CARD = json.loads((ROOT / "results" / "fast_a" / "a_seed_0.json").read_text())


def write(folder: Path, mode: str, seed: int = 0, end: float = 1e-4, **audit: float) -> dict[str, Any]:
    """A run's result.json."""
    content = copy.deepcopy(CARD)
    content |= {
        "regret_mode": mode,
        "experiment": None,
        "seed": seed,
        "recipe_hash": f"{mode}{end}",
        "iterations": 8000,
    }
    content["rmax"]["end"] = end
    content["audit"] |= {"revenue_samples": 1000, **audit}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(content))
    return content


def rows_of(*paths: Path) -> list:
    return make_rows(find_cards(paths)[0], BOUNDS, BEST)[0]


def cells(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_seeds_are_one_row_with_the_error_over_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, revenue in enumerate((0.88, 0.89, 0.93)):
        write(tmp_path / f"local_{seed}", "local", seed, revenue=revenue, regret_sum=0.002, regret_max=0.1 * seed)
    write(tmp_path / "single", "standard", revenue=0.87, revenue_se=0.004)
    report.main([str(tmp_path), "--format", "csv"])
    local, standard, *published = cells(capsys.readouterr().out)
    assert (local["method"], local["seeds"], local["error_over"]) == ("local", "3", "seeds")
    assert float(local["revenue"]) == pytest.approx(0.9)
    assert float(local["revenue_se"]) == pytest.approx(math.sqrt(7e-4 / 3), rel=1e-3)
    assert float(local["regret_ratio"]) == pytest.approx(0.002 / 0.9)
    assert float(local["regret_max"]) == pytest.approx(0.2)
    assert float(local["audited_over_training"]) == pytest.approx(0.002 / CARD["train"]["regret_sum"], rel=1e-5)
    assert (standard["error_over"], float(standard["revenue_se"])) == ("profiles", 0.004)
    assert (float(local["ceiling"]), local["ceiling_kind"]) == (pytest.approx(BOUNDS["a"], rel=1e-6), "bound")
    assert [row["method"] for row in published] == ["published Standard", "published Local"]
    assert [float(row["regret"]) for row in published] == [0.0004, 0.00077]


def test_speed_up_is_over_standard_in_the_same_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seconds of runs that had nothing to do with each other say nothing."""
    for mode, seconds, engine in (
        ("local", 2e-3, "compiled"),
        ("standard", 2e-2, "compiled"),
        ("multiscale", 1, "eager"),
    ):
        content = write(tmp_path / "sweep" / mode, mode)
        content["train"] |= {"seconds_per_iteration": seconds, "engine": engine}
        (tmp_path / "sweep" / mode / "result.json").write_text(json.dumps(content))
    report.main([str(tmp_path), "--format", "csv"])
    assert {row["speed_up"] for row in cells(capsys.readouterr().out)} == {""}
    report.main([str(tmp_path)])
    assert "peed-up" not in capsys.readouterr().out
    member = write(tmp_path / "sweep" / "population" / "seed_1", "refined")
    member["train"] |= {"seconds_per_iteration": 4e-3, "engine": "compiled"}
    (tmp_path / "sweep" / "population" / "seed_1" / "result.json").write_text(json.dumps(member))
    (tmp_path / "sweep" / "manifest.json").write_text("{}")
    report.main([str(tmp_path), "--format", "csv"])
    assert [row["speed_up"] for row in cells(capsys.readouterr().out)[:4]] == ["10", "", "5", "1"]
    report.main([str(tmp_path), "--format", "markdown"])
    assert "| speed-up |" in capsys.readouterr().out


def test_what_is_no_result_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "good", "local")
    write(tmp_path / "again", "local")
    half = tmp_path / "half" / "result.json"
    half.parent.mkdir()
    half.write_text((tmp_path / "good" / "result.json").read_text()[:700])
    (tmp_path / "card.json").write_text("[1, 2]")
    report.main([str(tmp_path), "--format", "markdown"])
    out, err = capsys.readouterr()
    assert out.count("| a | local |") == 1
    for part in (
        "half/result.json: no JSON, or only half",
        "card.json: not the result",
        "good/result.json: the same run",
    ):
        assert part in err
    assert err.count("\n") == 3
    assert "lower bound" in out
    assert f"strong at a: {CARD['audit']['search']}" in out
    for nothing in (tmp_path / "half", tmp_path / "nowhere"):
        with pytest.raises(SystemExit):
            report.main([str(nothing)])
        assert "report.py: there is no result in" in capsys.readouterr().err


def test_a_population_gives_way_to_its_members(tmp_path: Path) -> None:
    members = [{"seed": seed, "folder": f"member_{seed}", "regret": 0.0} for seed in (0, 1)]
    for member in members:
        write(tmp_path / member["folder"], "local", member["seed"])
    failed = {"seed": 2, "folder": "member_2", "failed": "diverged"}
    (tmp_path / "result.json").write_text(json.dumps({"setting": "a", "members": [*members, failed]}))
    for path in (tmp_path, tmp_path / "result.json"):
        cards, warnings = find_cards([path])
        assert [card.content["seed"] for card in cards] == [0, 1]
        assert warnings == []
        (row,) = make_rows(cards, BOUNDS, BEST)[0]
        assert len(row.cards) == 2


def test_other_recipes_and_audits_are_rows_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "one", "local", 0, 1e-4)
    write(tmp_path / "two", "local", 1, 2e-4)
    write(tmp_path / "three", "local", 0, 1e-4, samples=50)
    table = results_table(rows_of(tmp_path))
    assert [row["rmax.end"] for row in table.rows[:3]] == [(1e-4, "0.0001"), (1e-4, "0.0001"), (2e-4, "0.0002")]
    assert list(table.columns)[:4] == ["setting", "method", "rmax.end", "seeds"]
    old = [CARD, CARD | {"config_hash": "another", "seed": 1}]
    for k, content in enumerate(old):
        (tmp_path / f"{k}.json").write_text(json.dumps(content))
    assert [len(row.cards) for row in rows_of(tmp_path / "0.json", tmp_path / "1.json")] == [1, 1]


def test_a_choice_of_a_group_stands_for_the_keys_that_follow_from_it() -> None:
    adam = {"optimizer": "adam", "optimizer.lr": 1e-3, "optimizer.eps": 1e-7, "depth": 2.0, "recipe": "local"}
    soap = adam | {"optimizer": "soap", "optimizer.lr": 3e-3}
    del soap["optimizer.eps"]
    assert differing([adam, soap, adam | {"depth": 2}]) == ["optimizer"]
    assert differing([adam, soap, soap | {"optimizer.lr": 1e-2}]) == ["optimizer", "optimizer.lr"]
    assert differing([adam, adam | {"recipe": "standard", "depth": 3.0}]) == ["recipe"]
    early = {"depth": 2, "regret": "local"}
    assert differing([adam, early]) == []  # what is not told is no difference


def test_rows_are_sorted_and_columns_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k, revenue in enumerate((0.9, 0.7, 0.8)):
        write(tmp_path / str(k), "local", end=(k + 1) * 1e-4, revenue=revenue, regret=0.001 * k)
    command = [str(tmp_path), "--sort", "revenue", "--columns", "revenue,rmax.end,dual", "--format", "csv"]
    report.main(command)
    table = cells(capsys.readouterr().out)
    assert list(table[0]) == ["revenue", "rmax.end", "dual"]  # chosen, though it is the same everywhere
    numbers = [float(row["revenue"]) for row in table]
    assert numbers == sorted([0.9, 0.7, 0.8, *(TABLE_1["a", name].revenue for name in ("standard", "local"))])
    assert (table[0]["rmax.end"], table[0]["dual"]) == ("0.0002", CARD["dual"])
    with pytest.raises(SystemExit):
        report.main([str(tmp_path), "--sort", "revenu", "--frontier", str(tmp_path / "never.png")])
    assert "no column 'revenu'; did you mean revenue?" in capsys.readouterr().err
    assert not (tmp_path / "never.png").exists()


@pytest.mark.parametrize("width", [100, 200])
def test_a_table_is_not_wider_than_the_terminal(width: int) -> None:
    text = for_width(results_table(rows_of(ROOT / "results" / "probing", ROOT / "results" / "frontier")), width)
    assert width - 30 < max(map(len, text.splitlines())) <= width
    assert "Left out for want of room (--columns to choose): audited_over_training" in text
    assert "10,000" in text  # the number of profiles tells two rows apart and stays


def test_latex_is_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "run", "local_persistent", revenue=0.87, revenue_se=0.004)
    report.main([str(tmp_path), "--format", "latex", "--columns", "setting,method,revenue,samples,ceiling"])
    lines = capsys.readouterr().out.splitlines()
    first = next(k for k, line in enumerate(lines) if not line.startswith("%"))
    assert lines[first:][:2] == [r"\begin{tabular}{llrrr}", r"\toprule"]
    row = r"a & local\_persistent & $0.8700 \pm 0.0040$ & $10{,}000$ & $\geq 0.8736$, $\leq 0.8784$ \\"
    assert lines[first + 4] == row.replace("10{,}000", f"{CARD['audit']['samples']:,}".replace(",", "{,}"))
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    assert escaped("8e-5") == r"$8 \cdot 10^{-5}$"
    assert escaped("a_b 50% & {x} -") == r"a\_b 50\% \& \{x\} -"


def test_how_far_a_sweep_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "multirun" / "mine"
    content = write(sweep / "done", "local")
    write(sweep / "other", "local", end=1e-3)
    for name in ("failed", "again", "none"):
        (sweep / name / "checkpoints").mkdir(parents=True)
    for name, digest in (("failed", "failed"), ("again", "an earlier one")):
        (sweep / name / "failed.json").write_text(json.dumps({"config_hash": digest, "error": "no luck"}))
    (sweep / "again" / "checkpoints" / "last.ckpt").touch()
    names = ("failed", "again", "none", "never", "other")
    jobs = {name: {"overrides": [], "config_hash": name} for name in names}
    jobs["done"] = {"overrides": [], "config_hash": content["config_hash"]}
    (sweep / "manifest.json").write_text(json.dumps({"format": 1, "command": "python train.py", "jobs": jobs}))
    (tmp_path / "manifest.json").write_text('{"format": 1, "jo')
    report.main([str(tmp_path)])
    out, err = capsys.readouterr()
    assert f"6 jobs in {sweep}: 1 finished, 1 failed, 1 begun, 3 not begun\n  failed: failed: no luck\n" in out
    assert out.endswith("\n  begun: again\n  not begun: none, never, other\n")
    assert err.count("\n") == 1
    assert "other/result.json: of another configuration than manifest.json has for this job" in err
    for name in ("done", "other"):
        (sweep / name / "result.json").unlink()
    report.main([str(sweep), "--format", "csv", "--sort", "revenue"])
    out, err = capsys.readouterr()
    assert cells(out) == []
    assert "0 finished, 1 failed, 1 begun, 4 not begun" in err


def test_metrics_have_every_iteration_once(tmp_path: Path) -> None:
    runs = [{"setting": "a", "seed": 0}]
    first = MetricsFile(tmp_path, runs, done=0)
    assert not (tmp_path / METRICS).exists()
    for iteration in (10, 20, 30):
        first.write({"revenue": iteration / 100, "regret": math.nan}, iteration)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"iteration": 4')  # killed
    assert [entry["iteration"] for entry in read_metrics(tmp_path / METRICS)[0].entries] == [10, 20, 30]
    second = MetricsFile(tmp_path, runs, done=20)
    second.write({"revenue": 0.4}, 30)
    (series,) = read_metrics(tmp_path / METRICS)
    assert series.run == runs[0]
    assert [(entry["iteration"], entry["revenue"]) for entry in series.entries] == [(10, 0.1), (20, 0.2), (30, 0.4)]
    assert series.entries[0]["regret"] is None


def test_curves_are_means_over_seeds(tmp_path: Path) -> None:
    for seed, end in enumerate((1e-4, 1e-4, 1e-3)):
        choices = {"regret_mode": "local", "experiment": None, "seed": seed, "rmax": {"end": end}}
        content = CARD | choices | {"recipe_hash": str(end)}
        file = MetricsFile(tmp_path / str(seed), [content], done=0)
        for k in range(1, 1001 if seed == 0 else 501):
            file.write({"revenue": seed + k / 1000}, 10 * k)
    one, other = find_learning([tmp_path, tmp_path / "0"])
    assert [(one.label, len(one.runs)), (other.label, len(other.runs))] == [
        ("local rmax.end=0.0001", 2),
        ("local rmax.end=0.001", 1),
    ]
    curve = one.curve("revenue")
    assert (len(curve), curve[0], curve[-1].error) == (100, (55.0, pytest.approx(0.5055), 0.5), 0.0)
    assert curve[-1].mean == pytest.approx(0.9955)  # of the seed that has come so far
    assert one.curve("rmax") == []


def test_every_run_leaves_curves_and_its_configuration(
    cli: Callable[..., Answer], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = ("engine=eager", "regret=local", "iterations=20", *SMALL)
    vary = ("population=2", "vary={rmax.end:[1e-4,1e-3]}", "trainer.exploitation=null")
    answer = cli("train.py", *small, *vary, "setting.high=2.0", "hydra.run.dir=population")
    assert answer.code == 0, answer.err
    report.main(["population", "--curves", "curves.png", "--columns", "setting,rmax.end,optimizer.lr,seeds"])
    out, err = capfd.readouterr()
    assert err == ""
    assert [line.split() for line in out.splitlines()[-2:]] == [
        ["a,", "high=2", "0.0001", "0.001", "1"],
        ["a,", "high=2", "0.001", "0.001", "1"],
    ]
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    low, high = find_learning([tmp_path])
    assert (low.label, high.label) == ("local rmax.end=0.0001", "local rmax.end=0.001")
    assert [point.iteration for point in low.curve("revenue")] == [5, 10, 15, 20]
    assert [point.iteration for point in low.curve("held_out/regret")] == [10]
    assert low.curve("rmax")[-1].mean < high.curve("rmax")[-1].mean
    with pytest.raises(SystemExit):
        report.main([str(ROOT / "results" / "table1"), "--curves", "never.png"])
    assert "there is no metrics.jsonl of a run in" in capfd.readouterr().err


def test_a_thousand_results_take_seconds(tmp_path: Path) -> None:
    content = json.loads((ROOT / "results" / "table1" / "a-climbing-0.json").read_text())
    config = {key: {f"key_{k}": float(k) for k in range(8)} for key in ("mechanism", "dual", "optimizer", "data")}
    choices = dict.fromkeys(config, "same")
    for k in range(1000):
        depth, rate, seed = k // 50, float(k // 5 % 10), k % 5
        own = config | {"depth": depth, "optimizer": {"lr": rate}}
        telling = {"config": own, "choices": choices, "seed": seed, "recipe_hash": f"{depth} {rate}"}
        (tmp_path / str(k)).mkdir()
        (tmp_path / str(k) / "result.json").write_text(json.dumps(content | telling))
    heavy = ("torch", "matplotlib", "hydra", "omegaconf", "lightning", "rich", "numpy")
    program = f"import sys; sys.modules |= dict.fromkeys({heavy}); import report; report.main([{str(tmp_path)!r}])"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert answer.stdout.count("climbing") == 200
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5  # of CPU, the machine may be busy


def test_all_committed_cards_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    for form in FORMATS:
        report.main([str(ROOT / "results"), str(ROOT / "results" / "fast_a"), "--format", form])
        out, err = capsys.readouterr()
        assert "fast_a" in out.replace("\\_", "_")
        assert "step.json: not the result" in err


def grid(folder: Path) -> list:
    """Two budgets of `local` around both published regrets of (a), one of `standard`."""
    for seed in (0, 1):
        write(folder / f"low_{seed}", "local", seed, 1e-4, regret=0.0002, regret_se=0, revenue=0.88 + 0.002 * seed)
        write(folder / f"high_{seed}", "local", seed, 1e-3, regret=0.0018, regret_se=0, revenue=0.90 + 0.002 * seed)
    write(folder / "single", "standard", regret=0.0005)
    return frontiers(rows_of(folder))


def test_revenue_at_equal_regret_is_interpolated_and_never_extrapolated(tmp_path: Path) -> None:
    local, standard = grid(tmp_path)
    middle = local.revenue_at(0.0006)  # half way in the logarithm
    assert middle == pytest.approx((0.891, 0.001 / math.sqrt(2)))
    assert local.revenue_at(0.0018) == pytest.approx((0.901, 0.001))
    assert [local.revenue_at(regret) for regret in (0.0001, 0.002)] == [None, None]
    table = equal_regret([local, standard])
    by_method = {row["method"][1]: row for row in table.rows}
    assert "standard" not in by_method
    assert "Left out: 1 with one budget only." in table.heading[0]
    low = Frontier("a", "low", (local.rows[0], replace(local.rows[0])))
    assert equal_regret([low]).rows[0]["local"] == (None, "not bracketed")
    revenue = local.revenue_at(TABLE_1["a", "local"].regret)
    assert revenue is not None
    assert by_method["local"]["local"][0] == revenue[0]
    assert by_method["published, at regret"]["local"][1] == "0.8823, 0.00077"
    assert f"A truthful auction ({BEST['a'].name}) at a earns {BEST['a'].revenue:.4f}" in " ".join(table.heading)


def test_the_regret_at_which_a_method_earns_the_bound(tmp_path: Path) -> None:
    local, _ = grid(tmp_path)
    middle = local.regret_at(0.891)
    assert middle is not None
    assert middle == pytest.approx((0.0006, 0.0006 * 0.001 / math.sqrt(2) * math.log(9) / 0.02))
    assert local.revenue_at(middle[0]) == pytest.approx((0.891, 0.001 / math.sqrt(2)))
    assert [local.regret_at(revenue) for revenue in (0.8809, 0.9011)] == [None, None]
    bounded = replace(local, rows=tuple(replace(row, bound=0.891) for row in local.rows))
    table = equal_regret([bounded])
    assert table.rows[0]["zero_excess"][0] == pytest.approx(0.0006)
    assert "at a earns more than 0.8910 (the bound)" in table.heading[-1]
    assert "published" not in table.heading[-1], "they earn less"
    lower = replace(local, rows=tuple(replace(row, bound=0.885) for row in local.rows))
    assert equal_regret([lower]).heading[-1].endswith("is earned by regret; published: Standard 0.0024.")
    foreign = equal_regret([replace(bounded, setting="uniform_1x2")])
    assert [row["zero_excess"][0] for row in foreign.rows] == pytest.approx([0.0006])


def test_an_error_in_regret_is_an_error_in_revenue(tmp_path: Path) -> None:
    for k, regret in enumerate((0.0002, 0.0018)):
        audit = {"regret": regret, "regret_se": 0.1 * regret, "revenue": 0.88 + 0.02 * k, "revenue_se": 0.0}
        write(tmp_path / str(k), "local", 0, 10.0 ** (k - 4), **audit)
    (local,) = frontiers(rows_of(tmp_path))
    slope = 0.02 / math.log(9)
    assert local.revenue_at(0.0006) == pytest.approx((0.89, slope * 0.1 / math.sqrt(2)))


def test_methods_that_differ_in_anything_but_the_budget_are_not_interpolated_between(tmp_path: Path) -> None:
    for k, (method, regret) in enumerate([("soap", 1e-4), ("soap", 2e-4), ("adam", 3e-4), ("adam", 4e-4)]):
        content = write(tmp_path / str(k), "probing", end=regret, regret=regret, regret_se=1e-6)
        (tmp_path / str(k) / "result.json").write_text(json.dumps(content | {"method_hash": method}))
    soap, adam = sorted(frontiers(rows_of(tmp_path)), key=lambda frontier: -len(frontier.label))
    assert {len(soap.rows), len(adam.rows)} == {2}
    assert {soap.label[-6:], adam.label[-6:]} == {"(soap)", "(adam)"}
    assert soap.revenue_at(2.5e-4) is None
    assert adam.revenue_at(2.5e-4) is None


def test_the_frontier_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid(tmp_path)
    report.main([str(tmp_path), "--frontier", str(tmp_path / "pictures" / "frontier.png")])
    assert (tmp_path / "pictures" / "frontier.png").stat().st_size > 10_000
    assert "Nothing is extrapolated" in capsys.readouterr().out


def test_a_page_s_table_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "run", "local")
    page = tmp_path / "page.md"
    known = "<!-- known -->\nold\n<!-- /known -->\n"
    page.write_text(f"before\n<!-- table1 -->\nold\n<!-- /table1 -->\nafter\n{known}")
    report.main([str(tmp_path / "run"), "--readme", str(page)])
    text = markdown(results_table(rows_of(tmp_path / "run")))
    known = markdown(known_table(*report.KNOWN))
    after = f"after\n<!-- known -->\n{known}<!-- /known -->\n"
    assert page.read_text() == f"before\n<!-- table1 -->\n{text}<!-- /table1 -->\n{after}"
    page.write_text("no marks\n")
    with pytest.raises(SystemExit):
        report.main([str(tmp_path / "run"), "--readme", str(page)])
    assert "page.md needs a line <!-- table1 -->" in capsys.readouterr().err


def test_the_readme_s_table_is_what_its_cards_say() -> None:
    cards, warnings = find_cards(sorted((ROOT / "results" / "table1").glob("*.json")))
    assert warnings == []
    assert between_marks(ROOT / "README.md", "known") == markdown(known_table(*report.KNOWN))
    assert between_marks(ROOT / "README.md", "table1") == markdown(results_table(make_rows(cards, BOUNDS, BEST)[0]))
