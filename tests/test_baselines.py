"""Everything known of a setting in one table: revenue on common profiles, with controls."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate

from tests.conftest import CONF, ROOT, SMALL, Answer, network
from truthful.auditing.comparison import compare_revenue
from truthful.auditing.earnings import fresh_earnings
from truthful.ceilings import best_truthful, find_bound, setting_key
from truthful.mechanisms import VCG, FirstPrice, ItemwiseMyerson, Mechanism, SecondPrice
from truthful.settings import UniformBox
from truthful.streams import Stream

BOUNDS = ROOT / "results" / "bounds"
SETTING = UniformBox(2, 2, 0.0, 1.0, "additive")


class Unknown(SecondPrice):
    """A second-price auction that does not say what it earns."""

    def exact_revenue(self, setting: UniformBox) -> None:
        return None


def silent(share: float) -> None:
    assert 0 <= share <= 1


def compared(mechanisms: dict[str, Mechanism], profiles: int = 20_000):
    return compare_revenue(mechanisms, SETTING, profiles, 1, silent)


def test_controls_take_the_noise_of_what_they_explain() -> None:
    """Second price with one reserve is predicted by others; its revenue is 2 (1/3 + ...), known in closed form."""
    known = {
        f"second {reserve}": SecondPrice(**SETTING.shape, reserve=reserve) for reserve in (0.0, 0.3, 0.4, 0.6, 0.9)
    } | {"first": FirstPrice(**SETTING.shape, reserve=0.0), "myerson": ItemwiseMyerson(SETTING)}
    found = compared({**known, "unknown": Unknown(**SETTING.shape, reserve=0.45)})
    alone = compared({"unknown": Unknown(**SETTING.shape, reserve=0.45)})["unknown"]
    exact = SecondPrice(**SETTING.shape, reserve=0.45).exact_revenue(SETTING)
    with_controls = found["unknown"]
    assert with_controls.mean == alone.mean == alone.controlled
    assert alone.controlled_se == pytest.approx(alone.standard_error)
    assert with_controls.controlled_se < 0.5 * alone.standard_error
    assert abs(with_controls.controlled - exact) < 4 * with_controls.controlled_se
    assert abs(alone.mean - exact) < 4 * alone.standard_error
    for name in known:
        one = found[name]
        assert (one.controlled, one.controlled_se) == (one.exact, 0.0)
        assert abs(one.mean - one.exact) < 4 * one.standard_error


def test_revenue_is_on_the_profiles_of_an_audit() -> None:
    mechanism = network(SETTING)
    found = compared({"network": mechanism}, 5000)["network"]
    earned = fresh_earnings(mechanism, SETTING, 5000, 1, Stream.AUDIT)
    assert found.mean == pytest.approx(earned.mean, rel=1e-12)
    assert found.standard_error == pytest.approx(earned.standard_error, rel=1e-3)
    assert found.exact is None


def test_an_exact_revenue_that_is_none_is_refused() -> None:
    class Boast(SecondPrice):
        def exact_revenue(self, setting: UniformBox) -> float:
            return 0.7  # it earns 2/3

    with pytest.raises(ValueError, match="exact revenue of boast is off its mean over 20000 profiles"):
        compared({"boast": Boast(**SETTING.shape, reserve=0.0)})


def test_few_profiles_have_no_controls() -> None:
    known = {f"second {reserve}": SecondPrice(**SETTING.shape, reserve=reserve) for reserve in (0.0, 0.3, 0.6)}
    found = compared({**known, "network": network(SETTING)}, 100)["network"]
    assert (found.controlled, found.controlled_se) == (found.mean, found.standard_error)


def test_observed_auctions_are_each_taken_once() -> None:
    node = yaml.safe_load((CONF / "setting" / "empirical.yaml").read_text())
    setting = instantiate(node | {"file": str(ROOT / "examples" / "bids.csv")})
    mechanism = Unknown(**setting.shape, reserve=1.0)
    found = compare_revenue({"unknown": mechanism}, setting, 10_000, 1, silent)["unknown"]
    earned = fresh_earnings(mechanism, setting, 10_000, 1, Stream.AUDIT)
    assert earned.profiles == 80
    assert (found.mean, found.standard_error) == (pytest.approx(earned.mean), pytest.approx(earned.standard_error))


def test_a_control_that_never_varies_changes_nothing() -> None:
    one = UniformBox(1, 2, 0.0, 1.0, "additive")
    found = compare_revenue({"vcg": VCG(**one.shape, reserve=0.0), "network": network(one)}, one, 1000, 1, silent)
    assert found["vcg"].exact == 0
    assert found["network"].controlled == pytest.approx(found["network"].mean)
    assert not math.isnan(found["network"].controlled_se)
    with pytest.raises(ValueError, match="profiles must be at least 2, got 1"):
        compare_revenue({"vcg": VCG(**one.shape, reserve=0.0)}, one, 1, 1, silent)


def test_the_command_shows_what_is_known(cli: Callable[..., Answer], tmp_path: Path) -> None:
    arguments = ("setting=d", "regret=local", "iterations=10", "rmax.start=1e-3", *SMALL)
    assert cli("train.py", *arguments, "engine=eager", "hydra.run.dir=run").code == 0
    common = ("setting=d", "samples=2000", "out=cards")
    shutil.copytree(tmp_path / "run", tmp_path / "other" / "vcg")
    answer = cli("baselines.py", *common, "mechanisms=[menu,vcg,first_price]", "runs=[run,other/vcg]")
    assert answer.code == 0, answer.err
    card = json.loads((tmp_path / "cards" / "d.json").read_text())
    by_name = {auction["name"]: auction for auction in card["auctions"]}
    assert list(by_name) == ["menu", "vcg", "first_price", "run", "vcg_2"]
    assert by_name["menu"]["exact"] == pytest.approx(88 / 9, abs=1e-9)
    assert by_name["vcg"]["strategyproof"]
    assert not by_name["first_price"]["strategyproof"]
    assert by_name["run"]["audit"]["tier"] == "fast"
    assert "Daskalakis" in answer.out
    for asked, message in (
        ("mechanisms=[secnd_price]", "did you mean second_price?"),
        ("mechanisms=[regretnet]", "has to be trained first"),
        ("mechanisms=[straight_jacket]", "StraightJacket needs"),
        ("mechanisms=vcg", "mechanisms must be a list"),
        ("mechanisms=[]", "there is no auction to compare: none was asked for"),
        ("runs=nowhere", "nowhere"),
    ):
        refused = cli("baselines.py", *common, asked)
        assert refused.code == 1
        assert message in refused.err


CARDS = sorted((ROOT / "results" / "baselines").glob("*.json"))


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_no_truthful_auction_in_a_card_earns_more_than_the_optimum_or_the_bound(path: Path) -> None:
    card = json.loads(path.read_text())
    node = yaml.safe_load((CONF / "setting" / f"{card['setting']}.yaml").read_text())
    assert card["key"] == setting_key(node)
    ceilings = [card["optimum"] and card["optimum"]["revenue"], (find_bound(BOUNDS, node) or {}).get("limit")]
    for auction in card["auctions"]:
        if auction["exact"] is not None:
            assert abs(auction["mean"] - auction["exact"]) <= 4 * auction["standard_error"] + 1e-9
        if auction["strategyproof"]:
            for ceiling in filter(None, ceilings):
                assert auction["controlled"] - 3 * auction["controlled_se"] <= ceiling + 1e-9, auction["name"]


def test_the_best_truthful_auction_is_the_one_that_surely_earns_most(tmp_path: Path) -> None:
    auctions = [
        {"name": "sure", "controlled": 0.80, "controlled_se": 0.001, "strategyproof": "a theorem"},
        {"name": "noisy", "controlled": 0.81, "controlled_se": 0.01, "strategyproof": "a theorem"},
        {"name": "a lie", "controlled": 0.9, "controlled_se": 0.0, "strategyproof": None},
    ]
    (tmp_path / "x.json").write_text(json.dumps({"setting": "x", "auctions": auctions}))
    (tmp_path / "y.json").write_text(json.dumps({"setting": "x", "setting_overridden": True, "auctions": auctions}))
    best = best_truthful(tmp_path)
    assert best.keys() == {"x"}
    assert best["x"].name == "sure"
    assert best["x"].least == pytest.approx(0.8 - 3.09e-3)
