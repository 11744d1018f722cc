"""Observed valuations: reading them, drawing from them, and how sure an audit of so few can be."""

import importlib.util
import itertools
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console

import train
from tests.conftest import CONF, ROOT, SMALL
from tests.test_cli import Cli, result, same
from tests.test_config import composed
from truthful.app import plain
from truthful.auditing import audit
from truthful.auditing.earnings import fresh_earnings
from truthful.mechanisms import SecondPrice
from truthful.settings import Empirical
from truthful.streams import Stream, generator

EXAMPLE = ROOT / "examples" / "bids.csv"
NODE = {
    key: entry
    for key, entry in plain(OmegaConf.load(CONF / "setting" / "empirical.yaml")).items()
    if not key.startswith("_")
}
PARTS = (Stream.TRAIN, Stream.HELD_OUT, Stream.AUDIT)


def build(file: Path, **changes: Any) -> Empirical:
    """As conf/setting/empirical.yaml has it, but for the changes."""
    columns = NODE["columns"] | changes.pop("columns", {})
    return Empirical(**NODE | {"file": str(file), "columns": columns} | changes)


def long(values: torch.Tensor, bidders: str = "AB", items: str = "xy") -> list[str]:
    """The lines of a file, the auctions numbered from 0."""
    rows = [
        f"{a},{bidder},{item},{values[a, i, j].item():.6g}"
        for a in range(len(values))
        for i, bidder in enumerate(bidders)
        for j, item in enumerate(items)
    ]
    return ["auction,bidder,item,value", *rows]


def write(folder: Path, lines: list[str], name: str = "bids.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n" if lines else "")
    return path


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    """30 auctions whose values say where they come from: auction + bidder / 10 + item / 100."""
    a, i, j = torch.meshgrid(torch.arange(30.0), torch.arange(2.0), torch.arange(2.0), indexing="ij")
    return write(tmp_path, long(a + i / 10 + j / 100))


def rows(values: torch.Tensor) -> list[tuple]:
    return sorted(map(tuple, values.flatten(1).tolist()))


def test_the_example_is_what_its_script_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specification = importlib.util.spec_from_file_location("make_bids", ROOT / "examples" / "make_bids.py")
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    monkeypatch.setattr(script, "FILE", tmp_path / "bids.csv")
    script.main()
    assert (tmp_path / "bids.csv").read_bytes() == EXAMPLE.read_bytes()


def test_forms_orders_and_separators_do_not_matter(ids: Path, tmp_path: Path) -> None:
    header, *lines = ids.read_text().splitlines()
    cells = [line.split(",") for line in lines]
    twin = {(a, b): {c[2]: c[3] for c in cells if c[:2] == [a, b]} for a, b, *_ in cells}
    wide = ["y;bidder;auction;x", *(f"{v['y']};{b};{a};{v['x']}" for (a, b), v in reversed(twin.items()))]
    renamed = ["note,Who,What,Bid,Lot", *(f"-,{b}, {c} ,{v},{a}" for a, b, c, v in cells), ""]
    names = {"auction": "Lot", "bidder": "Who", "item": "What", "value": "Bid"}
    one = build(ids)
    others = [
        build(write(tmp_path, [header, *reversed(lines)], "reversed.csv")),
        build(write(tmp_path, wide, "wide.csv")),
        build(write(tmp_path, renamed, "renamed.csv"), columns=names),
    ]
    for other in others:
        assert torch.equal(one.low, other.low)
        assert torch.equal(one.high, other.high)
        for stream in PARTS:
            mine, theirs = (s.part(stream).sample(40, generator(3, stream)) for s in (one, other))
            assert torch.equal(mine, theirs)


def test_parquet_by_whichever_library_there_is(ids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ids.with_suffix(".parquet")
    path.write_bytes(b"stands in")
    names, *cells = (line.split(",") for line in ids.read_text().splitlines())
    columns = {name: [row[k] if k < 3 else float(row[k]) for row in cells] for k, name in enumerate(names)}

    def pyarrow(_: Path) -> Any:
        made = [SimpleNamespace(to_pylist=lambda column=column: column) for column in columns.values()]
        return SimpleNamespace(column_names=names, columns=made)

    class Frame(dict):
        columns = names

        def __getitem__(self, name: str) -> Any:
            return SimpleNamespace(tolist=lambda: columns[name])

    for library, attribute, reader in (
        ("pyarrow.parquet", "read_table", pyarrow),
        ("pandas", "read_parquet", lambda _: Frame()),
    ):
        for name in ("pyarrow", "pyarrow.parquet", "pandas"):
            monkeypatch.setitem(sys.modules, name, None)
        module = ModuleType(library)
        setattr(module, attribute, reader)
        monkeypatch.setitem(sys.modules, library.split(".")[0], ModuleType(library.split(".")[0]))
        monkeypatch.setitem(sys.modules, library, module)
        draws = [build(file).sample(18, torch.Generator().manual_seed(0)) for file in (path, ids)]
        assert torch.equal(*draws)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match="needs pyarrow or pandas"):
        build(path)


def test_parts_are_all_auctions_and_have_none_in_common(ids: Path) -> None:
    setting = build(ids)
    parts = {stream: setting.part(stream) for stream in PARTS}
    assert [part.observations for part in parts.values()] == [18, 6, 6]
    auctions = [part.sample(part.observations, torch.Generator())[:, 0, 0].long().tolist() for part in parts.values()]
    assert sorted(itertools.chain(*auctions)) == list(range(30))
    assert sorted(auctions[0]) != list(range(18))  # not in the order of the file
    other = build(ids, split_seed=1).part(Stream.AUDIT).sample(6, torch.Generator())[:, 0, 0].long().tolist()
    assert sorted(other) != sorted(auctions[2])
    assert (setting.observed["auctions"], setting.observed["audit"]) == (30, 6)
    for stream in (Stream.START, Stream.INIT, Stream.ORDER):  # whatever training draws
        assert rows(setting.part(stream).sample(18, torch.Generator())) == rows(setting.sample(18, torch.Generator()))
    assert rows(parts[Stream.AUDIT].part(Stream.TRAIN).sample(18, torch.Generator())) == rows(
        setting.sample(18, torch.Generator())
    )


def test_an_empty_part_is_refused_when_it_is_asked_for(ids: Path) -> None:
    setting = build(ids, split=[0.0, 0.0, 1.0])
    assert setting.part(Stream.AUDIT).observations == 30
    with pytest.raises(ValueError, match="for the part held_out"):
        setting.part(Stream.HELD_OUT)
    with pytest.raises(ValueError, match="for training"):
        setting.sample(2, torch.Generator())


def test_no_auction_comes_twice_before_all_have_come(ids: Path) -> None:
    part = build(ids).part(Stream.TRAIN)
    drawn = part.sample(45, torch.Generator().manual_seed(0))
    auctions = drawn[:, 0, 0].long()
    for first in (0, 18):
        assert len(auctions[first : first + 18].unique()) == 18
    assert len(auctions[36:].unique()) == 9
    assert auctions[:18].tolist() != auctions[18:36].tolist()
    place = drawn - auctions.float().view(-1, 1, 1)  # bidders and items stay where they are, auctions whole
    assert torch.allclose(place, torch.tensor([[0.0, 0.01], [0.1, 0.11]]).expand_as(place), atol=1e-5)
    firsts = torch.stack([part.sample(1, torch.Generator().manual_seed(k))[0, 0, 0] for k in range(1800)]).long()
    counts = firsts.bincount(minlength=30)
    counts = counts[counts > 0]
    assert len(counts) == 18
    assert float(((counts - 100).square() / 100).sum()) < 40  # chi-squared with 17 degrees of freedom, p = .001


def test_exchangeable_bidders_come_in_random_order(ids: Path) -> None:
    part = build(ids, exchangeable=True)
    drawn = part.sample(18 * 200, torch.Generator().manual_seed(0))
    auctions = drawn[:, 0, 0].long()
    assert bool((drawn.long() == auctions.view(-1, 1, 1)).all())  # still whole auctions
    first = ((drawn[:, :, 0] - auctions[:, None]) * 10).round().long()
    assert bool((first.sort(1).values == torch.tensor([0, 1])).all())
    assert abs(float(first[:, 0].double().mean()) - 0.5) < 4 * 0.5 / math.sqrt(len(first))
    assert part.exchangeable_bidders
    assert torch.equal(part.low[0], part.low[1])
    assert torch.allclose(part.high, torch.tensor([[29.1, 29.11]] * 2, dtype=torch.float64))


def test_exchangeable_bidders_need_no_common_labels(ids: Path, tmp_path: Path) -> None:
    header, *lines = ids.read_text().splitlines()
    named = [
        line.replace(",A,", f",bidder {k // 4 + 7},").replace(",B,", f",{k // 4},") for k, line in enumerate(lines)
    ]
    path = write(tmp_path, [header, *named], "named.csv")
    assert build(path, exchangeable=True).n_bidders == 2
    with pytest.raises(ValueError, match="unlike most; all must have the same bidders"):
        build(path)


def test_independent_bidders_are_drawn_from_auctions_of_their_own(ids: Path) -> None:
    part = build(ids, resample="bidders")
    drawn = part.sample(18, torch.Generator().manual_seed(0))
    auctions = drawn.long()
    assert torch.equal(auctions[..., 0], auctions[..., 1])  # a bidder's values stay together
    for i in range(2):
        assert len(auctions[:, i, 0].unique()) == 18
        assert bool(((drawn[:, i] - auctions[:, i] - i / 10).abs() < 0.02).all())
    many = part.sample(18 * 300, torch.Generator().manual_seed(1)).long()[..., 0]
    together = float((many[:, 0] == many[:, 1]).double().mean())
    assert abs(together - 1 / 18) < 4 * math.sqrt(17 / 18**2 / len(many))


def test_exchangeable_and_independent_rows_come_from_one_pool(ids: Path) -> None:
    part = build(ids, resample="bidders", exchangeable=True)
    drawn = part.sample(18, torch.Generator().manual_seed(0)).flatten(0, 1)
    assert len({tuple(row) for row in drawn.tolist()}) == 36
    twice = part.sample(36, torch.Generator().manual_seed(0)).flatten(0, 1)
    assert rows(twice[:36].unsqueeze(1)) == rows(twice[36:].unsqueeze(1))


def test_the_box_is_the_smallest_or_the_one_given_and_holds_every_draw(tmp_path: Path) -> None:
    values = (torch.randint(1, 10, (30, 2, 2), generator=torch.Generator().manual_seed(0)) / 10).double()
    path = write(tmp_path, long(values))
    setting = build(path)
    assert torch.allclose(setting.low, values.amin(0), atol=1e-7)
    assert torch.allclose(setting.high, values.amax(0), atol=1e-7)
    draws = setting.part(Stream.AUDIT).sample(50, torch.Generator()).double()  # .1 in float32 is above .1
    assert torch.equal(setting.project(draws), draws)
    wider = build(path, low=0.0, high=[1.0, 2.0])
    assert wider.low.tolist() == [[0, 0]] * 2
    assert wider.high.tolist() == [[1, 2]] * 2
    assert build(path, high=5.0).low.tolist() == setting.low.tolist()


def test_what_is_not_known_of_observations_is_not_claimed() -> None:
    setting = build(EXAMPLE)
    assert setting.laws is None
    assert setting.optimal_revenue is None
    assert not setting.independent
    assert not setting.exchangeable_bidders
    with pytest.raises(ValueError, match="not known as a function of uniform numbers"):
        setting.quantile(torch.rand(1, 2, 2))


HEADER = "auction,bidder,item,value"
GOOD = long(torch.arange(80.0).view(20, 2, 2))[1:]
MISTAKES = [
    ([], "is empty"),
    ([HEADER], "has no rows"),
    (["auktion,bidder,item,value", *GOOD], r"line 1: .*'auction'.*'auktion'.*did you mean setting.columns.auction=auk"),
    (["auction,bidder,item", *GOOD], "line 1: there is no column 'value', the columns are 'auction', 'bidder', 'item'"),
    (["auction,bidder,product,value", *GOOD], r"line 2: 'product' \(an item, as there is no column 'item'\) must be a"),
    (["auction,bidder,value,value", *GOOD], "line 1: two columns are called 'value'"),
    ([",auction,bidder", "0,0,A"], "line 1: expected the columns .* got '', 'auction', 'bidder'"),
    ([HEADER, *GOOD[:3], "0,B,y,-1"], "line 5: value must be a finite number of at least 0.*, got '-1'"),
    ([HEADER, *GOOD[:3], "0,B,y,high"], "line 5: value .* got 'high'"),
    ([HEADER, *GOOD[:3], "0,B,y,nan"], "line 5: value .* got 'nan'"),
    ([HEADER, *GOOD[:3], "0,B,y,inf"], "line 5: value .* got 'inf'"),
    ([HEADER, *GOOD[:3], "0,B,y,1e39"], "line 5: value .* got '1e39'"),
    ([HEADER, *GOOD[:3], "0,B,y,"], "line 5: value .* got ''"),
    ([HEADER, *GOOD[:3], "0,,y,1"], "line 5: bidder must not be empty"),
    ([HEADER, *GOOD[:3], "0,B,y"], "line 5: expected 4 cells, as in line 1, got 3"),
    ([HEADER, *GOOD, "", GOOD[4]], "line 83: auction '1', bidder 'A', item 'x' is there already, in line 6"),
    ([HEADER, *GOOD[:5], *GOOD[6:]], "line 6: auction '1', bidder 'A' lacks the item 'y', unlike most"),
    ([HEADER, *GOOD[:4], *GOOD[6:]], "line 6: auction '1' lacks the bidder 'A'"),
    ([HEADER, *GOOD[:4], "1,a,x,1", "1,a,y,1", *GOOD[6:]], "line 6: .* lacks the bidder 'A' and has the bidder 'a'"),
    ([HEADER, *GOOD[:36]], r"must have at least 10 auctions, 2 in each part of split=\[0.6, 0.2, 0.2\], got 9"),
    ([HEADER, *(line.rsplit(",", 1)[0] + ",3" for line in GOOD)], "every value of bidder 'A' for item 'x' is 3; expec"),
]


@pytest.mark.parametrize(("lines", "message"), MISTAKES, ids=[str(k) for k in range(len(MISTAKES))])
def test_a_mistake_in_the_file_is_named_with_its_line(lines: list[str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, lines)
    with pytest.raises(ValueError, match=message) as error:
        build(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "nowhere.csv"}, "no file 'nowhere.csv'; paths are relative to the working directory"),
        ({"n_bidders": 3}, "n_bidders must be null or 2, as in .*, got 3"),
        ({"n_items": 5}, "n_items must be null or 2"),
        ({"low": 1.0}, "line 2: the value of item 'x' must be between low=1 and high=76, got 0"),
        ({"high": [100.0, 70.0]}, "line 73: the value of item 'y' must be between low=3 and high=70, got 71"),
        ({"exchangeable": True, "high": [[90.0], [99.0]]}, "exchangeable bidders must have the same low and high"),
        ({"resample": "rows"}, "resample must be one of auctions, bidders, got 'rows'"),
        ({"split": [0.5, 0.5]}, "split must be three shares"),
        ({"split": [0.5, 0.6, -0.1]}, "split must be three shares"),
        ({"split": [0.5, 0.5, 0.1]}, "with the sum 1"),
        ({"split_seed": True}, "split_seed must be a whole number"),
        ({"sha256": "0" * 64}, "is not the file that was used before"),
        ({"columns": {"valu": "v"}}, "did you mean columns.value"),
        ({"demand": "both"}, "demand must be one of"),
    ],
)
def test_a_wrong_argument_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, [HEADER, *GOOD])
    with pytest.raises(ValueError, match=message):
        build(**{"file": path, **changes})


def second_price_revenue(values: torch.Tensor) -> torch.Tensor:
    return values.sort(1).values[:, -2].sum(-1)


def test_an_audit_has_every_auction_once_and_says_how_many_there_are() -> None:
    setting = build(EXAMPLE)
    mechanism = SecondPrice(**setting.shape, reserve=0.0)
    report = audit(mechanism, setting, "fast", 10_000, 1, revenue_samples=20_000)
    part = setting.part(Stream.AUDIT)
    exact = second_price_revenue(part.sample(80, torch.Generator()).double())
    assert (report.samples, report.observations, report.revenue_samples) == (80, 80, 80)
    assert report.revenue == pytest.approx(float(exact.mean()), rel=1e-6)
    assert report.revenue_se == pytest.approx(float(exact.std()) / math.sqrt(80), rel=1e-6)
    assert "few_observations" in report.flags
    assert rows(report.instances.values) == rows(part.sample(80, torch.Generator()).double())
    fewer = audit(mechanism, setting, "fast", 50, 1, revenue_samples=20_000)
    assert (fewer.samples, fewer.observations, fewer.revenue_samples) == (50, 80, 80)
    assert len(fewer.instances.values.unique(dim=0)) == 50
    assert "few_observations" not in fewer.flags
    held_out = audit(mechanism, setting, "fast", 80, 1, Stream.HELD_OUT)
    assert not set(rows(held_out.instances.values)) & set(rows(report.instances.values))


def test_revenue_of_more_auctions_than_go_through_at_once_repeats_none(
    ids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["truthful.auditing.earnings"], "ROWS", 4)
    setting = build(ids, split=[0.0, 0.0, 1.0])
    earned = fresh_earnings(SecondPrice(**setting.shape, reserve=0.0), setting, 1000, 0, Stream.AUDIT)
    exact = second_price_revenue(setting.part(Stream.AUDIT).sample(30, torch.Generator()).double())
    assert earned.profiles == 30
    assert earned.mean == pytest.approx(float(exact.mean()), rel=1e-6)


@pytest.mark.parametrize("draws", [{}, {"exchangeable": True}, {"resample": "bidders"}])
def test_the_standard_error_is_that_of_the_next_data_set(draws: dict[str, Any], tmp_path: Path) -> None:
    """Over data sets from one law, the audited revenue varies as much as each single audit says."""
    means, errors = [], []
    for k in range(80):
        path = write(tmp_path, long(torch.rand(50, 2, 2, generator=torch.Generator().manual_seed(k))))
        setting = build(path, split=[0.5, 0.1, 0.4], **draws)
        earned = fresh_earnings(SecondPrice(**setting.shape, reserve=0.0), setting, 10_000, 0, Stream.AUDIT)
        means.append(earned.mean)
        errors.append(earned.standard_error)
    spread = float(torch.tensor(means).std())
    stated = float(torch.tensor(errors).mean())
    assert spread / stated == pytest.approx(1, abs=4 / math.sqrt(2 * 80))  # 10,000 would make it 22
    assert sum(means) / 80 == pytest.approx(2 / 3, abs=4 * stated / math.sqrt(80))


def test_the_certificate_counts_auctions_not_draws(ids: Path) -> None:
    setting = build(ids, split=[0.3, 0.3, 0.4])
    report = audit(SecondPrice(**setting.shape, reserve=0.0), setting, "certified", 200, 1)
    assert report.certificate is not None
    assert report.samples == 12
    assert len(report.instances.values) == 12


@pytest.mark.parametrize("mode", sorted({path.stem for path in (CONF / "regret").glob("*.yaml")} - {"none"}))
def test_every_regret_mode_trains(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    overrides = [f"regret={mode}", "iterations=4", "batch=8", "data.samples=16", "depth=1", "mechanism.width=8"]
    if mode == "local":
        overrides = [*overrides[:3], *overrides[4:], "data=fresh"]
    module = train.build_module(composed("setting=empirical", *overrides), Console(quiet=True))
    before = [parameter.detach().clone() for parameter in module.mechanism.parameters()]
    module.settle()
    module.make_ready()
    module.run(0, 4)
    assert module.is_finite()
    assert not all(map(torch.equal, before, module.mechanism.parameters()))
    assert set(rows(module.next_batch()[0])) <= set(rows(module.setting.sample(240, torch.Generator())))


def test_training_on_a_file_its_result_and_its_evaluation(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "bids.csv"
    path.write_bytes(EXAMPLE.read_bytes())
    arguments = ("setting=empirical", "setting.file=bids.csv", "iterations=12", *SMALL[:-2], "logger=none")
    answer = cli("train.py", *arguments, "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    assert "400 auctions of bids.csv: 240 to train on, 80 held out, 80 to audit" in " ".join(answer.out.split())
    assert "80 of 80 observed auctions" in answer.out
    content = result(tmp_path / "run")
    assert content["observed"] | {"sha256": ""} == {
        "file": "bids.csv",
        "sha256": "",
        "auctions": 400,
        "train": 240,
        "held_out": 80,
        "audit": 80,
        "bidders": ["entrant", "incumbent"],
        "items": ["evening", "morning"],
    }
    assert (content["audit"]["samples"], content["audit"]["observations"]) == (80, 80)
    assert content["audit"]["flags"][-1] == "few_observations"

    answer = cli("evaluate.py", "run=run", "audit=fast", "audit.samples=10", "hydra.run.dir=e")
    assert answer.code == 0, answer.err
    assert result(tmp_path / "e")["observed"] == content["observed"]
    answer = cli("evaluate.py", "run=run", "setting.split_seed=1", "audit=fast", "hydra.run.dir=f")
    assert "setting.split_seed must be 0, as in training, got 1" in answer.err

    path.write_text(path.read_text().replace("6.34", "6.35", 1))
    for command in (
        ("evaluate.py", "run=run", "audit=fast", "hydra.run.dir=g"),
        ("train.py", *arguments, "resume=auto", "hydra.run.dir=run"),
    ):
        answer = cli(*command)
        assert answer.code == 1
        assert "sha256" in answer.err
    answer = cli("evaluate.py", "run=run", "setting.sha256=null", "audit=fast", "audit.samples=10", "hydra.run.dir=h")
    assert answer.code == 0, answer.err
    assert result(tmp_path / "h")["config_hash"] != result(tmp_path / "e")["config_hash"]


def test_a_run_goes_on_only_with_the_file_it_began_with(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bids.csv"
    path.write_bytes(EXAMPLE.read_bytes())
    arguments = ("setting=empirical", "setting.file=bids.csv", "iterations=20", *SMALL)
    assert cli("train.py", *arguments, "hydra.run.dir=whole").code == 0
    with monkeypatch.context() as patch:

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr("truthful.callbacks.PeriodicAudit._warn", stop)
        cli("train.py", *arguments, "hydra.run.dir=part")
    assert not (tmp_path / "part" / "result.json").exists()
    path.write_text(path.read_text().replace("6.34", "6.35", 1))
    answer = cli("train.py", "resume=part")
    assert answer.code == 1
    assert "bids.csv is not the file that was used before" in answer.err
    answer = cli("train.py", *arguments, "resume=auto", "hydra.run.dir=part")
    assert answer.code == 1
    assert "setting.sha256 is" in answer.err
    path.write_bytes(EXAMPLE.read_bytes())
    assert cli("train.py", "resume=part").code == 0
    assert same(tmp_path / "whole", tmp_path / "part")
    assert result(tmp_path / "whole")["audit"]["regret"] == result(tmp_path / "part")["audit"]["regret"]
