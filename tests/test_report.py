"""Tables and pictures of many results."""

import copy
import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

import report
from tests.conftest import ROOT
from truthful.ceilings import best_truthful, named_bounds
from truthful.published import TABLE_1
from truthful.report import equal_regret, find_cards, frontiers, known_table, make_rows, markdown, results_table
from truthful.report.rendering import between_marks

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
    assert [row["method"] for row in published] == ["published RegretNet-Standard", "published RegretNet-Local"]
    assert [float(row["regret"]) for row in published] == [0.0004, 0.00077]


def test_speed_up_is_over_standard_on_the_same_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mode, seconds, engine in (
        ("local", 2e-3, "compiled"),
        ("standard", 2e-2, "compiled"),
        ("multiscale", 1, "eager"),
    ):
        content = write(tmp_path / mode, mode)
        content["train"] |= {"seconds_per_iteration": seconds, "engine": engine}
        (tmp_path / mode / "result.json").write_text(json.dumps(content))
    report.main([str(tmp_path), "--format", "csv"])
    assert [row["speed_up"] for row in cells(capsys.readouterr().out)[:3]] == ["10", "", "1"]


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
    rows = rows_of(tmp_path)
    methods = sorted(row["method"][1] for row in results_table(rows).rows[:3])
    assert methods == ["local rmax.end=0.0001", "local rmax.end=0.0001", "local rmax.end=0.0002"]
    old = [CARD, CARD | {"config_hash": "another", "seed": 1}]
    for k, content in enumerate(old):
        (tmp_path / f"{k}.json").write_text(json.dumps(content))
    assert [len(row.cards) for row in rows_of(tmp_path / "0.json", tmp_path / "1.json")] == [1, 1]


def test_all_committed_cards_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("terminal", "markdown", "csv"):
        report.main([str(ROOT / "results"), str(ROOT / "results" / "fast_a"), "--format", form])
        out, err = capsys.readouterr()
        assert "fast_a" in out
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
    assert by_method["standard"]["local"][1] == "not bracketed"
    revenue = local.revenue_at(TABLE_1["a", "local"].regret)
    assert revenue is not None
    assert by_method["local"]["local"][0] == revenue[0]
    assert by_method["published, at regret"]["local"][1] == "0.8823, 0.00077"
    assert f"A truthful auction ({BEST['a'].name}) at a earns {BEST['a'].revenue:.4f}" in " ".join(table.heading)


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
