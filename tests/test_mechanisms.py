from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from tests.conftest import CONF, network
from truthful.app import build_mechanism, plain
from truthful.auction import revenue, utility
from truthful.errors import UserError
from truthful.mechanisms import FirstPrice, Mechanism, RegretNet, SecondPrice
from truthful.settings import Setting, UniformBox

SETTINGS = [
    UniformBox(1, 1, 0.0, 1.0, "additive"),
    UniformBox(3, 2, [0.0, 4.0], [1.0, 16.0], "additive"),
    UniformBox(2, 3, 0.0, 1.0, "unit"),
]


ITEM_BY_ITEM = ("first_price", "second_price")


def build(file: Path, setting: Setting) -> Mechanism:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[f"mechanism={file.stem}"])
        return build_mechanism({"mechanism": plain(config.mechanism)}, setting)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.demand)
@pytest.mark.parametrize("file", sorted((CONF / "mechanism").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_mechanism_is_feasible_and_individually_rational(file: Path, setting: Setting) -> None:
    if file.stem in ITEM_BY_ITEM and setting.demand == "unit":
        with pytest.raises(UserError, match="additive demand"):
            build(file, setting)
        return
    if file.stem == "linear_program":
        with pytest.raises(UserError, match="finitely many atoms"):
            build(file, setting)
        return
    mechanism = build(file, setting)
    mechanism.initialise(torch.Generator().manual_seed(0))
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
