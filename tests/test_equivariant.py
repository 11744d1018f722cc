"""Networks that treat bidders and items alike: what that means, any number of them, and training them."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tests.conftest import SMALL, interrupted, network, regret_mode, result, same
from tests.test_cli import Cli
from tests.test_engine import Traced
from tests.test_training import fit, make
from truthful.auction import Outcome, revenue, utility
from truthful.checkpoints import restore_mechanism
from truthful.engine import Eager
from truthful.errors import UserError
from truthful.mechanisms import EquivariantNet, Mechanism, RegretFormer
from truthful.mechanisms.exchangeable import Exchangeable
from truthful.mechanisms.regretformer import Block
from truthful.population import Stacked
from truthful.report import find_cards, make_rows
from truthful.settings import UniformBox

KINDS = ["equivariantnet", "regretformer", "positional"]
EQUIVARIANT = KINDS[:2]


def built(kind: str, n: int = 2, m: int = 2, demand: str = "additive", seed: int = 0, depth: int = 2) -> Mechanism:
    """A small network, its parameters large enough for outcomes to differ from bid to bid."""
    mechanism: Mechanism
    if kind == "equivariantnet":
        mechanism = EquivariantNet(n, m, demand, depth, width=8, activation=torch.nn.Tanh())
    else:
        mechanism = RegretFormer(n, m, demand, depth, 8, 2, torch.nn.Tanh(), positional=kind == "positional")
    mechanism.initialise(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in mechanism.parameters():
            parameter.mul_(2)
    return mechanism


def gap(one: Outcome, other: Outcome) -> float:
    allocation, payment = one.allocation - other.allocation, one.payment - other.payment
    return max(float(part.detach().abs().max()) for part in (allocation, payment))


def permuted(outcome: Outcome, bidders: torch.Tensor, items: torch.Tensor) -> Outcome:
    return Outcome(outcome.allocation[..., bidders, :][..., items], outcome.payment[..., bidders])


@pytest.mark.parametrize("demand", ["additive", "unit"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_permuting_bidders_or_items_permutes_the_outcome(kind: str, demand: str) -> None:
    generator = torch.Generator().manual_seed(1)
    mechanism, bids = built(kind, 4, 3, demand), torch.rand(50, 3, 4, 3, generator=generator)
    everyone, everything = torch.arange(4), torch.arange(3)
    shuffled = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])
    before = mechanism(bids)
    assert float(before.allocation.std()) > 1e-3  # else there is nothing to permute
    for bidders, items in ((shuffled[0], everything), (everyone, shuffled[1]), shuffled):
        moved = gap(mechanism(bids[..., bidders, :][..., items]), permuted(before, bidders, items))
        assert moved <= 1e-5 if kind in EQUIVARIANT else moved > 1e-2
    assert mechanism.equivariant == (kind in EQUIVARIANT)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_parameters_fit_any_number_of_bidders_and_items(kind: str) -> None:
    small, large = built(kind, 2, 3, "unit"), built(kind, 3, 5, "unit", seed=1)
    large.load_state_dict(small.state_dict())
    bids = torch.rand(100, 3, 5)
    assert gap(small(bids), large(bids)) == 0
    outcome = large(bids)
    assert float(outcome.allocation.sum(-1).max()) <= 1 + 1e-6
    assert float(outcome.allocation.sum(-2).max()) <= 1 + 1e-6
    assert float(utility(bids, outcome).min()) >= -1e-6
    assert float(revenue(outcome).mean()) > 0


@torch.no_grad()
def test_an_exchangeable_layer_is_its_formula() -> None:
    layer, features = Exchangeable(2, 5), torch.rand(3, 4, 2)
    own, bidders, items, both = layer.weight.chunk(4, -1)
    computed = layer(features.unsqueeze(0))[0]
    for i in range(3):
        for j in range(4):
            means = bidders @ features[:, j].mean(0) + items @ features[i].mean(0) + both @ features.mean((0, 1))
            assert torch.allclose(computed[i, j], own @ features[i, j] + means + layer.bias, atol=1e-6)


@torch.no_grad()
def test_a_block_is_attention_over_rows_and_columns() -> None:
    block, features = Block(8, 2, torch.nn.Tanh()), torch.rand(3, 4, 8)
    computed = block(features.unsqueeze(0))[0]
    over_items, over_bidders = block.projection(features).split(24, -1)

    def attended(tokens: torch.Tensor) -> torch.Tensor:
        query, key, value = (part.unflatten(-1, (2, 4)).transpose(0, 1) for part in tokens.split(8, -1))
        return scaled_dot_product_attention(query, key, value).transpose(0, 1).flatten(-2)

    for i in range(3):
        for j in range(4):
            answers = torch.cat([attended(over_items[i])[j], attended(over_bidders[:, j])[i]])
            assert torch.allclose(computed[i, j], features[i, j] + block.mixture(answers).tanh(), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_are_right_to_second_order_and_reach_every_parameter(kind: str) -> None:
    mechanism = built(kind, 2, 2, "unit").double()
    bids = (0.5 + torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(2)).double()).requires_grad_()

    def worth(bids: torch.Tensor) -> torch.Tensor:
        outcome = mechanism(bids)
        return utility(torch.ones_like(bids), outcome).sum(-1)

    assert torch.autograd.gradcheck(worth, bids)
    assert torch.autograd.gradgradcheck(worth, bids)
    gradients = torch.autograd.grad(worth(bids).sum(), list(mechanism.parameters()))
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_stacked_networks_answer_as_each_does(kind: str) -> None:
    members = [built(kind, 2, 3, "unit", seed) for seed in range(3)]
    bids = torch.rand(3, 5, 4, 2, 3)
    together = Stacked(members)(bids)
    for k, member in enumerate(members):
        assert gap(Outcome(together.allocation[k], together.payment[k]), member(bids[k])) <= 1e-6


@pytest.mark.parametrize(
    ("kind", "mode"), [("equivariantnet", "local"), ("regretformer", "probing"), ("positional", "gradient")]
)
def test_they_train_and_can_be_compiled(kind: str, mode: str) -> None:
    runs = []
    for engine in (Eager(), Traced()):
        module = make(4, regret=regret_mode(mode), mechanism=built(kind, depth=1)).double()
        module.data.sample = module.data.sample.double()
        module.engine = engine
        runs.append(fit(module))
        assert module.engine is engine
    eager, traced = (run.state_dict() for run in runs)
    assert float(eager["history"][3, 1]) > 0
    for name, state in eager.items():
        assert torch.allclose(state, traced[name], rtol=0, atol=1e-9), name


def test_a_setting_whose_items_differ_is_warned_of() -> None:
    setting = UniformBox(1, 2, 0.0, [16.0, 7.0], "additive")
    with pytest.warns(UserWarning, match="the items of this setting are not known to be exchangeable"):
        make(4, setting=setting, mechanism=built("regretformer", 1))
    make(4, setting=setting, mechanism=built("positional", 1))  # a warning would be an error


@pytest.mark.parametrize("change", [{"blocks": 0}, {"width": 0}, {"heads": 3}])
def test_a_wrong_network_is_refused(change: dict) -> None:
    arguments = {"blocks": 1, "width": 8, "heads": 2, "activation": torch.nn.Tanh(), "positional": False}
    with pytest.raises(ValueError, match=next(iter(change))):
        RegretFormer(2, 2, "additive", **{**arguments, **change})


@pytest.mark.parametrize(("mechanism", "mode"), [("equivariantnet", "probing"), ("regretformer", "standard")])
def test_trained_at_2_x_3_resumed_exactly_evaluated_at_3_x_5_and_reported(
    mechanism: str, mode: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = (f"mechanism={mechanism}", "mechanism.width=8", "depth=1", "setting=uniform_2x3", f"regret={mode}", *SMALL)
    small += ("trainer.audit_every=0", "iterations=15")
    assert cli("train.py", *small, "hydra.run.dir=whole").code == 0
    with interrupted(monkeypatch, 12):
        assert cli("train.py", *small, "hydra.run.dir=run").code != 0
    assert cli("train.py", "resume=run").code == 0
    assert same(tmp_path / "whole", tmp_path / "run")

    few = ("audit=fast", "audit.samples=8", "hydra.run.dir=there")
    answer = cli("evaluate.py", "run=run", "setting.n_bidders=3", "setting.n_items=5", *few)
    assert answer.code == 0, answer.err
    there = result(tmp_path / "there")
    assert there["setting_overrides"] == {"n_bidders": 3, "n_items": 5}
    assert len(there["audit"]["regret_by_bidder"]) == 3
    cards, unread = find_cards([Path("run"), Path("there")])
    rows, _ = make_rows(cards, {}, {})
    assert [row.setting for row in rows] == ["uniform_2x3", "uniform_2x3, n_bidders=3 n_items=5"]
    assert all(row.facts["mechanism"] == mechanism for row in rows)
    assert unread == []


def test_regretnet_says_that_it_is_for_its_own_size() -> None:
    small, large = (network(UniformBox(2, m, 0.0, 1.0, "additive")) for m in (2, 5))
    state = {f"mechanism.{name}": tensor for name, tensor in small.state_dict().items()}
    with pytest.raises(UserError, match=r"RegretNet was trained for other numbers .* than 2 x 5 additive"):
        restore_mechanism(large, {"state_dict": state})
