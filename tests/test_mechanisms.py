import copy
import itertools
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hydra import compose, initialize_config_dir

from tests.conftest import CONF, network
from truthful.app import build_mechanism, plain
from truthful.auction import revenue, utility
from truthful.auditing import audit
from truthful.errors import UserError
from truthful.mechanisms import FirstPrice, Mechanism, RegretNet, SecondPrice, affine_fit, cma_es
from truthful.settings import Setting, UniformBox

SETTINGS = [
    UniformBox(1, 1, 0.0, 1.0, "additive"),
    UniformBox(1, 2, 0.0, 1.0, "additive"),
    UniformBox(3, 2, [[0.0, 4.0], [1.0, 0.0], [0.0, 0.0]], [[1.0, 16.0], [3.0, 9.0], [2.0, 2.0]], "additive"),
    UniformBox(1, 2, 0.0, 1.0, "unit"),
    UniformBox(2, 3, 0.0, 1.0, "unit"),
]
FILES = sorted((CONF / "mechanism").glob("*.yaml"))

ITEM_BY_ITEM = ("first_price", "second_price", "itemwise_myerson", "bundled_myerson", "straight_jacket")
ONE_BIDDER = ("menu", "rochetnet", "straight_jacket")
OTHER_TYPES = {"budgeted_regretnet": "settings with private budgets", "citransnet": "settings with contexts"}
TRAINED_WITH_REGRET = {"regretnet", "equivariantnet", "regretformer", "sparsemax_regretnet", *OTHER_TYPES}
TRUTHFUL = {path.stem for path in FILES} - {"first_price", *TRAINED_WITH_REGRET}


def build(file: Path, setting: Setting) -> Mechanism:
    few = ["mechanism.samples=2000", "mechanism.restarts=1"] if file.stem in ("ama", "vvca") else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[f"mechanism={file.stem}", *few])
        return build_mechanism({"mechanism": plain(config.mechanism)}, setting)


@cache
def built(file: Path, number: int) -> Mechanism:
    """The same mechanism for all tests, of few steps if it is fitted."""
    with patch.object(cma_es, "GENERATIONS", 5), patch.object(affine_fit, "STEPS", 20):
        mechanism = build(file, SETTINGS[number])
    mechanism.initialise(torch.Generator().manual_seed(0))
    return mechanism


def refusal(name: str, setting: Setting) -> str | None:
    """What a mechanism says to a setting that it is not for."""
    if name in OTHER_TYPES:
        return OTHER_TYPES[name]
    if name == "linear_program":
        return "finitely many atoms"
    if name in ONE_BIDDER and setting.n_bidders > 1:
        return "one bidder"
    if name == "myersonnet" and setting.n_items > 1:
        return "one item"
    if name in ITEM_BY_ITEM and setting.demand == "unit":
        return "additive"
    return "optimal menu is known" if name == "menu" and setting.optimum.menu is None else None


PAIRS = list(itertools.product(FILES, range(len(SETTINGS))))
REFUSED = [(file, k) for file, k in PAIRS if refusal(file.stem, SETTINGS[k])]


def name_of(pair: tuple[Path, int]) -> str:
    file, setting = pair[0], SETTINGS[pair[1]]
    return f"{file.stem}-{setting.n_bidders}x{setting.n_items}-{setting.demand}"


@pytest.fixture(params=[pair for pair in PAIRS if pair not in REFUSED], ids=name_of)
def pair(request: pytest.FixtureRequest) -> tuple[Path, int]:
    return request.param


@pytest.fixture
def mechanism(pair: tuple[Path, int]) -> Mechanism:
    return copy.deepcopy(built(*pair))


@pytest.fixture
def setting(pair: tuple[Path, int]) -> Setting:
    return SETTINGS[pair[1]]


@pytest.mark.parametrize("pair", REFUSED, ids=name_of)
def test_a_mechanism_refuses_what_it_is_not_for(pair: tuple[Path, int]) -> None:
    file, setting = pair[0], SETTINGS[pair[1]]
    with pytest.raises(UserError, match=refusal(file.stem, setting)):
        build(file, setting)


def test_every_mechanism_is_feasible_and_individually_rational(mechanism: Mechanism, setting: Setting) -> None:
    bids = setting.sample(300, torch.Generator().manual_seed(1)).unflatten(0, (3, 100))
    with torch.no_grad():
        outcome = mechanism(bids)
    assert outcome.allocation.shape == bids.shape
    assert outcome.payment.shape == bids.shape[:-1]
    assert float(outcome.allocation.min()) >= 0
    assert float(outcome.allocation.sum(-2).max()) <= 1 + 1e-6
    if setting.demand == "unit":
        assert float(outcome.allocation.sum(-1).max()) <= 1 + 1e-6
    assert float(utility(bids, outcome).min()) >= -1e-5
    assert float(revenue(outcome).min()) >= 0


def test_every_mechanism_is_so_for_bids_outside_the_support_too(mechanism: Mechanism, setting: Setting) -> None:
    bids = 3 * setting.high * torch.rand(500, *setting.high.shape, generator=torch.Generator().manual_seed(2)).double()
    bids[:50] = 0
    bids[50:100] = setting.low
    with torch.no_grad():
        outcome = mechanism.double()(bids)
    assert float(outcome.allocation.min()) >= 0
    assert float(outcome.allocation.sum(-2).max()) <= 1 + 1e-12
    assert bool(outcome.payment.isfinite().all())
    assert float(utility(bids, outcome).min()) >= -1e-12


def test_axes_precision_and_copies_do_not_matter(mechanism: Mechanism, setting: Setting) -> None:
    bids = setting.sample(64, torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole = mechanism(bids)
        single = [mechanism(bid) for bid in bids]
        copied = copy.deepcopy(mechanism).double()(bids.double())
    assert whole.payment.dtype == torch.float32
    assert copied.payment.dtype == copied.allocation.dtype == torch.float64
    assert torch.allclose(torch.stack([outcome.payment for outcome in single]), whole.payment, atol=1e-5)
    assert torch.allclose(copied.payment.float(), whole.payment, atol=1e-4)
    assert torch.allclose(copied.allocation.float(), whole.allocation, atol=1e-4)


def test_what_a_theorem_calls_truthful_is_not_to_be_lied_to(
    mechanism: Mechanism, setting: Setting, pair: tuple[Path, int]
) -> None:
    truthful = pair[0].stem in TRUTHFUL
    assert bool(mechanism.theorem) == truthful
    if truthful:
        report = audit(mechanism, setting, "fast", samples=100)
        assert report.regret_max <= 1e-9
        assert set(report.flags) <= {"zero_gradients", "no_gradients", "no_revenue"}
        assert ("no_revenue" in report.flags) == (mechanism.exact_revenue(setting) == 0)


@pytest.mark.parametrize("scores", [1, 2])
def test_unit_demand_binds_on_rows_and_columns(scores: int) -> None:
    setting = UniformBox(3, 2, 0.0, 1.0, "unit")
    mechanism = network(setting, scale=20.0, unit_demand_scores=scores)
    allocation = mechanism(setting.sample(500, torch.Generator())).allocation
    assert float(allocation.sum(-1).max()) <= 1 + 1e-6
    assert float(allocation.sum(-2).max()) <= 1 + 1e-6
    assert float(allocation.max()) > 0.5


def test_unit_demand_is_the_minimum_of_two_softmaxes() -> None:
    setting = UniformBox(2, 3, 0.0, 1.0, "unit")
    mechanism = network(setting)
    bids = setting.sample(4, torch.Generator())
    scores = mechanism.allocation_network(bids.flatten(-2))
    over_bidders = scores[:, :9].view(4, 3, 3).softmax(1)[:, :2]
    over_items = scores[:, 9:].view(4, 2, 4).softmax(2)[:, :, :3]
    assert torch.equal(mechanism(bids).allocation, torch.minimum(over_bidders, over_items))


def test_depth_is_the_number_of_hidden_layers() -> None:
    for depth in (1, 2, 5):
        mechanism = network(UniformBox(2, 2, 0.0, 1.0, "additive"), depth=depth)
        linear = [layer for layer in mechanism.payment_network if isinstance(layer, torch.nn.Linear)]
        assert len(linear) == depth + 1


def test_initialisation_is_glorot_with_zero_bias_and_follows_the_generator() -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    one, same, other = (network(setting, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.allocation_network[0].weight, other.allocation_network[0].weight)
    assert float(one.allocation_network[0].bias.abs().max()) == 0
    bound = (6 / (4 + 16)) ** 0.5
    assert 0.8 * bound < float(one.allocation_network[0].weight.abs().max()) <= bound


@pytest.mark.parametrize("change", [{"depth": 0}, {"width": 0}, {"unit_demand_scores": 3}])
def test_a_wrong_network_is_refused(change: dict) -> None:
    arguments = {"depth": 2, "width": 8, "activation": torch.nn.Tanh(), "unit_demand_scores": 2}
    with pytest.raises(ValueError, match=next(iter(change))):
        RegretNet(2, 2, "additive", **{**arguments, **change})


def test_second_price_charges_the_larger_of_reserve_and_second_bid() -> None:
    bids = torch.tensor([[[0.9, 0.2], [0.6, 0.1], [0.3, 0.0]]])
    outcome = SecondPrice(3, 2, "additive", reserve=0.5)(bids)
    assert outcome.allocation.tolist() == [[[1, 0], [0, 0], [0, 0]]]
    assert outcome.payment[0].tolist() == pytest.approx([0.6, 0, 0])
    assert SecondPrice(1, 1, "additive", reserve=0.5)(torch.tensor([[0.7]])).payment.tolist() == [0.5]


def test_second_price_with_reserve_one_half_earns_the_optimum() -> None:
    setting = UniformBox(2, 1, 0.0, 1.0, "additive")
    values = setting.sample(200_000, torch.Generator().manual_seed(0))
    earned = revenue(SecondPrice(2, 1, "additive", reserve=0.5)(values))
    assert float(earned.mean()) == pytest.approx(setting.optimal_revenue, abs=4 * float(earned.std()) / 200_000**0.5)


def test_first_price_charges_the_bid() -> None:
    outcome = FirstPrice(2, 1, "additive", reserve=0.0)(torch.tensor([[0.4], [0.9]]))
    assert outcome.payment.tolist() == pytest.approx([0, 0.9])
