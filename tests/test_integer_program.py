"""The exact worst misreport: against a grid, against the attack and the certificate, and what it refuses."""

import pytest
import torch
from torch import Tensor

from tests.conftest import network
from tests.test_training import fit, make
from truthful.auction import deviation_utility
from truthful.auditing import audit
from truthful.auditing.certificate import certify
from truthful.auditing.integer_program import worst_misreport
from truthful.auditing.models import model_of
from truthful.data import FixedSample
from truthful.mechanisms import SparsemaxRegretNet
from truthful.mechanisms.feasible import sparsemax
from truthful.settings import Setting, UniformBox


def random_network(setting: Setting) -> SparsemaxRegretNet:
    mechanism = SparsemaxRegretNet(setting, 1, 8, 3)
    mechanism.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in mechanism.parameters():
            parameter.mul_(3)
    return mechanism


def gains_on_a_grid(mechanism: SparsemaxRegretNet, values: Tensor, bidder: int) -> Tensor:
    line = torch.linspace(0, 1, 101, dtype=torch.float64)
    reports = torch.cartesian_prod(*[line] * values.shape[-1]).view(-1, values.shape[-1])
    misreport = values.double().expand(len(reports), *values.shape).clone()
    misreport[:, bidder] = reports
    truth = deviation_utility(mechanism, values.double()[None], values.double()[None])[0, bidder]
    return deviation_utility(mechanism, values.double().expand_as(misreport), misreport)[:, bidder] - truth


@pytest.mark.parametrize("setting", [UniformBox(2, 2, 0.0, 1.0, demand) for demand in ("additive", "unit")])
def test_no_report_on_a_grid_beats_the_exact_one(setting: Setting) -> None:
    mechanism = random_network(setting)
    worst = 0.0
    for values in setting.sample(2, torch.Generator().manual_seed(1)):
        for bidder in range(2):
            found = worst_misreport(mechanism, setting, values, bidder, 60.0)
            gains = gains_on_a_grid(mechanism.double().requires_grad_(False), values, bidder)
            assert found.bound == pytest.approx(found.regret, abs=1e-5)
            assert -0.03 <= float(gains.max()) - found.regret <= 1e-5
            worst = max(worst, found.regret)
    assert worst > 0.02


def test_a_layer_that_is_always_zero_is_no_contradiction() -> None:
    setting = UniformBox(1, 1, 0.0, 1.0, "additive")
    mechanism = SparsemaxRegretNet(setting, 2, 4, 3)
    with torch.no_grad():
        for parameter in mechanism.parameters():
            parameter.zero_()
    found = worst_misreport(mechanism, setting, torch.tensor([[0.7]]), 0, 60.0)
    assert found.regret == pytest.approx(0, abs=1e-9)


def test_another_activation_is_neither_certified_nor_programmed() -> None:
    setting = UniformBox(1, 1, 0.0, 1.0, "additive")
    mechanism = random_network(setting)
    mechanism.payment_network[1] = torch.nn.Tanh()
    with pytest.raises(ValueError, match="only a network of ReLUs is an integer program, got Tanh"):
        worst_misreport(mechanism, setting, torch.tensor([[0.7]]), 0, 60.0)
    with pytest.raises(ValueError, match="the activation must be one of ReLU to be certified, got Tanh"):
        model_of(mechanism, 0)


def test_attack_program_and_certificate_agree_on_a_trained_network() -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    mechanism = SparsemaxRegretNet(setting, 1, 16, 8)
    fit(make(150, mechanism=mechanism, batch=64, data=FixedSample(1280)))
    found = audit(mechanism, setting, "strong", 2, seed=20).instances
    values, bidder = found.values.repeat_interleave(2, 0), torch.arange(2).repeat(2)
    proven = certify(mechanism, setting, values, bidder, found.misreport.flatten(0, 1), 1e-3, 20_000)
    exact = [worst_misreport(mechanism, setting, v, int(i), 60.0) for v, i in zip(values, bidder, strict=True)]
    regret = torch.tensor([one.regret for one in exact], dtype=torch.float64)
    assert float(regret.max()) > 1e-3
    assert torch.allclose(found.gain.flatten(), regret, atol=1e-4)
    assert bool(proven.closed.all())
    assert bool((proven.upper >= torch.maximum(regret, found.gain.flatten()) - 1e-6).all())


def test_sparsemax_is_the_nearest_point_of_the_simplex() -> None:
    scores = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    chances = sparsemax(scores, -1)
    assert torch.allclose(chances.sum(-1), torch.ones(50).double())
    assert float(chances.min()) == 0
    others = torch.rand(50, 200, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    others = others / others.sum(-1, keepdim=True)  # the angle to every other point is obtuse
    assert float(((scores - chances).unsqueeze(1) * (others - chances.unsqueeze(1))).sum(-1).max()) <= 1e-12


def test_wrong_arguments_are_refused() -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    values = setting.sample(1, torch.Generator())[0]
    with pytest.raises(ValueError, match="only a SparsemaxRegretNet is an integer program, got RegretNet"):
        worst_misreport(network(setting), setting, values, 0, 1.0)
    mechanism = random_network(setting)
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        worst_misreport(mechanism, setting, values, 2, 1.0)
    with pytest.raises(ValueError, match=r"shape \(2, 2\), got \(1, 2\)"):
        worst_misreport(mechanism, setting, values[:1], 0, 1.0)
    with pytest.raises(ValueError, match=r"levels must be .* at least 1, got 0"):
        SparsemaxRegretNet(setting, 1, 4, 0)
