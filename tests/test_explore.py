"""The explore page, in a real browser: what it shows is what the auction does."""

import copy
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.browser import CHROMIUM, Browser
from tests.conftest import CONF, SMALL, Answer, network
from truthful.auction import deviation_utility, utility
from truthful.explore import Facts, explore_page
from truthful.explore.page import SOURCES
from truthful.mechanisms import Mechanism, Menu, MyersonNet, RegretNet, SecondPrice
from truthful.settings import Setting, UniformBox

Cli = Callable[..., Answer]

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: the page was NOT opened")
NODE = shutil.which("node")
FACTS = Facts("an auction", "somewhere", {}, {})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def settings() -> dict[str, Setting]:
    """All that the page can show."""
    nodes = {path.stem: OmegaConf.load(path) for path in (CONF / "setting").glob("*.yaml") if path.stem != "empirical"}
    built = {name: instantiate(node) for name, node in sorted(nodes.items())}
    return {
        name: setting
        for name, setting in built.items()
        if setting.n_items <= 2 and not setting.budgeted and not setting.features
    }


def open_page(browser: Browser, mechanism: Mechanism, setting: Setting, folder: Path) -> None:
    page = folder / "page.html"
    page.write_text(explore_page(mechanism, setting, FACTS))
    browser.open(page)


def relu(setting: Setting) -> RegretNet:
    mechanism = RegretNet(**setting.shape, depth=3, width=20, activation=torch.nn.ReLU(), unit_demand_scores=1)
    mechanism.initialise(torch.Generator().manual_seed(1))
    return mechanism


def myersonnet(setting: Setting) -> MyersonNet:
    mechanism = MyersonNet(setting, groups=4, lines=3, hot=0.1, cold=0.01)
    mechanism.initialise(torch.Generator().manual_seed(1))
    return mechanism


MECHANISMS = {
    "additive": lambda: (network(box := UniformBox(3, 2, 0.0, [1.0, 3.0], "additive"), scale=2), box),
    "unit, two score matrices": lambda: (network(box := UniformBox(2, 2, 0.0, 1.0, "unit"), scale=2), box),
    "unit, one, ReLU": lambda: (relu(box := UniformBox(2, 2, 0.0, 1.0, "unit")), box),
    "one item, deep": lambda: (network(box := UniformBox(2, 1, 2.0, 4.0, "additive"), depth=5), box),
    "virtual values": lambda: (myersonnet(box := UniformBox(3, 1, 1.0, [[2.0], [4.0], [5.0]], "additive")), box),
    "menu": lambda: (Menu(box := UniformBox(1, 2, 4.0, [16.0, 7.0], "additive"), entries=None), box),
}


@needs_chromium
@pytest.mark.parametrize("name", MECHANISMS)
def test_the_page_computes_what_the_mechanism_does(name: str, browser: Browser, tmp_path: Path) -> None:
    mechanism, setting = MECHANISMS[name]()
    open_page(browser, mechanism, setting, tmp_path)
    values = setting.sample(100, torch.Generator().manual_seed(5)).double()
    values[0], values[1] = setting.low, setting.high
    said = browser.run(
        f"{values.flatten(1).tolist()}.map((bids) => auction.rule(Float64Array.from(bids)))"
        ".map(({ allocation, payment }) => [...allocation, ...payment])"
    )
    outcome = copy.deepcopy(mechanism).double()(values)
    wanted = torch.cat([outcome.allocation.flatten(1), outcome.payment], 1)
    assert torch.allclose(torch.tensor(said, dtype=torch.float64), wanted, rtol=0, atol=1e-10)
    assert "agree at 100 profiles" in browser.run("element('check').textContent")
    assert browser.complaints == []


@pytest.mark.skipif(NODE is None, reason="node is not installed: rules were NOT computed in it")
@pytest.mark.parametrize("name", MECHANISMS)
def test_a_rule_stands_on_its_own(name: str) -> None:
    """Where there is node but no browser, the rules are tested all the same."""
    mechanism, setting = MECHANISMS[name]()
    exported = mechanism.exported()
    assert exported is not None
    rule, numbers = exported
    values = setting.sample(20, torch.Generator().manual_seed(6)).double()
    program = f"""
        {(SOURCES / "rules" / f"{rule}.js").read_text()}
        const plain = {json.dumps(numbers, default=lambda tensor: tensor.flatten().tolist())};
        const outcome = rule(plain, {setting.n_bidders}, {setting.n_items});
        const said = {values.flatten(1).tolist()}.map(outcome);
        console.log(JSON.stringify(said.map(({{ allocation, payment }}) => [...allocation, ...payment])));
    """
    answer = subprocess.run([str(NODE), "-"], input=program, capture_output=True, text=True, check=True)
    outcome = copy.deepcopy(mechanism).double()(values)
    wanted = torch.cat([outcome.allocation.flatten(1), outcome.payment], 1)
    assert torch.allclose(torch.tensor(json.loads(answer.stdout), dtype=torch.float64), wanted, rtol=0, atol=1e-10)


@needs_chromium
def test_a_page_of_another_auction_says_so(browser: Browser, tmp_path: Path) -> None:
    class Cheaper(RegretNet):
        def forward(self, bids: torch.Tensor):
            outcome = super().forward(bids)
            return type(outcome)(outcome.allocation, outcome.payment * 0.999)

    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    mechanism = Cheaper(**setting.shape, depth=1, width=5, activation=torch.nn.Tanh(), unit_demand_scores=2)
    open_page(browser, mechanism, setting, tmp_path)
    assert "Do not trust" in browser.run("element('check').textContent")


@needs_chromium
def test_supports_are_those_of_the_settings(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, *MECHANISMS["menu"](), tmp_path)
    generator = torch.Generator().manual_seed(0)
    for name, setting in settings().items():
        room = setting.high - setting.low
        share = torch.rand(200, *room.shape, generator=generator, dtype=torch.float64)
        points = setting.low + (1.4 * share - 0.2) * room
        nearest = setting.project(points)
        for bidder in range(setting.n_bidders):
            padded = torch.nn.functional.pad(points[:, bidder], (0, 2 - setting.n_items)).tolist()
            said = browser.run(f"{padded}.map((point) => project({json.dumps(setting.polygons(bidder))}, point))")
            found = torch.tensor(said, dtype=torch.float64)[:, : setting.n_items]
            assert torch.allclose(found, nearest[:, bidder], atol=1e-9), name


@needs_chromium
def test_no_lie_pays_against_the_optimal_menu(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, *MECHANISMS["menu"](), tmp_path)
    assert browser.run("Math.max(...state.table.layers[3])") == 0
    assert "No lie found" in browser.run("element('gain').textContent")
    corners = {tuple(point) for edge in browser.run("auction.optimum") for point in edge}
    assert {(8.0, 4.0), (8.0, 7.0), (4.0, 6.0)} <= corners  # Daskalakis, Deckelbaum and Tzamos 2017


@needs_chromium
def test_a_run_can_be_explored(cli: Cli, browser: Browser, tmp_path: Path) -> None:
    """Opened from disk, dragged, turned; the gain that is shown is real, and nearly all there is."""
    assert cli("train.py", "setting=a", "iterations=5", "engine=eager", "hydra.run.dir=run", *SMALL).code == 0
    answer = cli("explore.py", "run=run")
    assert answer.code == 0, answer.err
    assert "run/explore.html" in answer.out
    page = Path("run/explore.html")
    assert page.stat().st_size < 2e6

    milliseconds = []
    for _ in range(3):  # the best of three, on a machine that may be busy
        browser.open(page)
        milliseconds.append(browser.run("performance.getEntriesByType('navigation')[0].loadEventEnd"))
    assert min(milliseconds) < 1000
    assert browser.run("performance.getEntriesByType('resource').length") == 0
    text = browser.run("document.body.innerText")
    audit = json.loads(Path("run/result.json").read_text())["audit"]
    for said in (f"{audit['revenue']:.4f}", f"{audit['regret']:.5f}", "fast, 8 profiles", "lower bound", "train.py"):
        assert said in text

    left, top, right, bottom = browser.run(
        "(({ left, top }) => [left + maps[0].plot.left, top + maps[0].plot.top, left + maps[0].plot.right,"
        " top + maps[0].plot.bottom])(maps[0].canvas.getBoundingClientRect())"
    )
    place = (left + 0.6 * (right - left), bottom - 0.8 * (bottom - top))
    browser.drag((left + 5, bottom - 5), place)
    assert browser.run("state.profile[0]") == pytest.approx([0.6, 0.8], abs=0.01)

    browser.run("document.querySelectorAll('#values input[type=range]')[2].focus()")
    browser.press("ArrowRight")
    assert browser.run("state.profile[1]") == pytest.approx([0.5 + 1 / 96, 0.5])
    browser.run("document.querySelectorAll('#values input[type=radio]')[1].click()")
    browser.settle()
    check_gain(browser, Path("run"), bidder=1)
    assert browser.complaints == []


def check_gain(browser: Browser, folder: Path, bidder: int) -> None:
    """The gain that the page shows is that of its lie, and no grid of lies has more."""
    from truthful import checkpoints
    from truthful.app import build_trained

    _, mechanism = build_trained(checkpoints.load(folder / "checkpoints" / "last.ckpt"))
    mechanism = mechanism.double().requires_grad_(False)
    assert browser.run("state.bidder") == bidder
    values = torch.tensor(browser.run("state.profile"), dtype=torch.float64)
    found = browser.run("state.found")
    honest = utility(values, mechanism(values))[bidder]
    lie = values.clone()
    lie[bidder] = torch.tensor(found["report"])
    gain = deviation_utility(mechanism, values, lie)[bidder] - honest
    assert found["gain"] == pytest.approx(float(gain), abs=1e-10)
    axis = torch.linspace(0, 1, 101, dtype=torch.float64)
    lies = values.repeat(101 * 101, 1, 1)
    lies[:, bidder] = torch.cartesian_prod(axis, axis)
    best = (deviation_utility(mechanism, values, lies)[:, bidder] - honest).max()
    assert found["gain"] >= float(best)
    assert found["gain"] > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "explore.py needs run=<folder>, or mechanism=<name> with setting=<name>; got neither"),
        (("run=nowhere", "setting=a"), "run=<folder> has its own setting; leave out setting="),
        (("run=nowhere",), "there is no checkpoint at nowhere/checkpoints/last.ckpt"),
        (("mechanism=menu",), "mechanism=<name> needs a setting=<name>, too"),
        (("mechanism=regretnet", "setting=a"), "mechanism=regretnet has to be trained first: give run=<folder>"),
        (("mechanism=vcg", "setting=a"), "VCG has no rule in JavaScript to compute it in a page"),
        (("mechanism=menu", "mechanism.entries=[[1,1,1,1]]", "setting=uniform_1x3"), "one or two items"),
    ],
)
def test_what_cannot_be_explored_is_refused(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    answer = cli("explore.py", *arguments)
    assert answer.code == 1
    assert sentence in answer.err
    assert len(answer.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_rule_is_a_value_error() -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    with pytest.raises(ValueError, match=r"SecondPrice has no rule in JavaScript.*menu, myersonnet, regretnet have"):
        explore_page(SecondPrice(**setting.shape, reserve=0.5), setting, FACTS)
    gelu = RegretNet(**setting.shape, depth=1, width=2, activation=torch.nn.GELU(), unit_demand_scores=2)
    with pytest.raises(ValueError, match="one of Tanh, ReLU, Sigmoid, got GELU"):
        explore_page(gelu, setting, FACTS)


def test_texts_cannot_break_the_page() -> None:
    setting = UniformBox(1, 2, 0.0, 1.0, "additive")
    facts = Facts("<b>{{script}}</b>", "</script>", {"<i>": "&"}, {})
    page = explore_page(network(setting), setting, facts)
    assert "&lt;b&gt;{{script}}&lt;/b&gt;" in page
    assert page.count("</script>") == 2
