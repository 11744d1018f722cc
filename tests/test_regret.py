from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from tests.conftest import CONF, network
from truthful.auction import deviation_utility, utility
from truthful.regret import (
    AdamStep,
    GradientAscent,
    GradientStep,
    MultiscaleRegret,
    RandomStart,
    RegretMode,
    SearchedRegret,
    TruthfulStart,
)
from truthful.regret.ascent import gradient_at_truth, utility_and_gradient
from truthful.settings import Setting, UniformBox, UniformUnion

ALL = torch.Generator


def searched(steps: int = 1, length: float = 0.05, keep: bool = False, random: bool = False) -> SearchedRegret:
    ascent = GradientAscent(steps, AdamStep(length))
    return SearchedRegret(ascent, RandomStart() if random else TruthfulStart(), keep, not random, False)


def visit(mode: RegretMode, mechanism: torch.nn.Module, setting: Setting, sample: torch.Tensor, rows: slice | None):
    values = (sample if rows is None else sample[rows]).requires_grad_(mode.starts_at_truth)
    truthful = mechanism(values)
    begun = mode.begin(setting, values.detach(), rows, torch.Generator().manual_seed(5))
    misreport = mode.find(mechanism, setting, values, begun, None if mode.staged else truthful)
    mode.store(rows, misreport)
    return mode(mechanism, setting, values.detach(), truthful, misreport)


def gradient_by_differences(mechanism, values: torch.Tensor, misreport: torch.Tensor) -> torch.Tensor:
    gradient = torch.zeros_like(misreport)
    for index in torch.cartesian_prod(*(torch.arange(k) for k in misreport.shape)):
        step = torch.zeros_like(misreport)
        step[tuple(index)] = 1e-5
        difference = deviation_utility(mechanism, values, misreport + step) - deviation_utility(
            mechanism, values, misreport - step
        )
        gradient[tuple(index)] = difference.sum() / 2e-5
    return gradient


def test_the_local_misreport_is_one_sign_step_from_the_truth(two_by_two: UniformBox) -> None:
    mechanism = network(two_by_two, scale=2.0).double()
    values = torch.rand(7, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    reached = GradientAscent(1, AdamStep(0.05)).climb(mechanism, two_by_two, values, values)
    with torch.no_grad():
        sign = gradient_by_differences(mechanism, values, values).sign()
    assert torch.allclose(reached, (values + 0.05 * sign).clamp(0, 1), atol=1e-5)


def test_adam_steps_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    point = torch.zeros(3, 2, 2, requires_grad=True)
    optimiser = torch.optim.Adam([point], lr=0.1, eps=AdamStep.EPSILON, maximize=True)
    ours, rule = torch.zeros(3, 2, 2), AdamStep(0.1)
    state = rule.begin(ours)
    for _ in range(30):
        gradient = torch.randn(3, 2, 2, generator=generator)
        point.grad = gradient.clone()
        optimiser.step()
        move, *state = rule(gradient, *state)
        ours += move
    assert torch.allclose(ours, point.detach(), atol=1e-5)


def test_a_gradient_step_is_plain() -> None:
    assert GradientStep(0.5).begin(torch.zeros(2)) == ()
    (move,) = GradientStep(0.5)(torch.tensor([2.0, -4.0]))
    assert move.tolist() == [1.0, -2.0]


@pytest.mark.parametrize("length", [0.0, -1.0, float("inf")])
def test_a_wrong_length_is_refused(length: float) -> None:
    with pytest.raises(ValueError, match="positive number"):
        AdamStep(length)


@pytest.mark.parametrize("demand", ["additive", "unit"])
def test_the_gradient_at_the_truth_comes_from_the_truthful_outcome(demand: str) -> None:
    setting = UniformBox(3, 2, 0.0, 1.0, demand)
    mechanism = network(setting, scale=2.0).double()
    values = setting.sample(9, torch.Generator().manual_seed(0)).double().requires_grad_()
    shared = gradient_at_truth(values, mechanism(values))
    _, expected = utility_and_gradient(mechanism, values.detach(), values.detach())
    assert torch.allclose(shared, expected, atol=1e-14)
    assert float(shared.abs().max()) > 0


def test_a_search_is_pure_and_never_returns_a_loss() -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    mechanism = network(setting, scale=3.0)
    values = setting.sample(50, torch.Generator().manual_seed(0))
    start = setting.sample(150, torch.Generator().manual_seed(1)).unflatten(0, (3, 50))
    before = [tensor.clone() for tensor in (values, start, *mechanism.parameters())]
    found = GradientAscent(15, AdamStep(0.2))(mechanism, setting, values, start)
    assert all(torch.equal(a, b) for a, b in zip(before, (values, start, *mechanism.parameters()), strict=True))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in mechanism.parameters())
    assert float(found.gain.min()) >= 0
    for report in (found.best, found.last):
        assert torch.equal(setting.project(report), report)
    with torch.no_grad():
        truth = utility(values, mechanism(values))
        assert torch.allclose(deviation_utility(mechanism, values, found.best) - truth, found.gain, atol=1e-6)
        assert bool((deviation_utility(mechanism, values, start) - truth <= found.gain + 1e-6).all())
        assert bool((deviation_utility(mechanism, values, found.last) - truth <= found.gain + 1e-6).all())


def test_climb_is_the_last_iterate() -> None:
    setting = UniformBox(2, 3, 0.0, 1.0, "unit")
    mechanism, values = network(setting), setting.sample(9, torch.Generator())
    ascent = GradientAscent(4, AdamStep(0.1))
    assert torch.equal(
        ascent.climb(mechanism, setting, values, values), ascent(mechanism, setting, values, values).last
    )


def test_regret_is_the_mean_gain_and_differentiable(two_by_two: UniformBox) -> None:
    mechanism = network(two_by_two, scale=2.0)
    values = two_by_two.sample(40, torch.Generator().manual_seed(0))
    mode = searched()
    mode.prepare(two_by_two, None, torch.Generator())
    regret = visit(mode, mechanism, two_by_two, values, None)
    misreport = mode.search.climb(mechanism, two_by_two, values, values)
    expected = torch.zeros(2)
    with torch.no_grad():
        for bids, lie in zip(values, misreport, strict=True):
            honest = utility(bids, mechanism(bids))
            for i in range(2):
                report = bids.clone()
                report[i] = lie[i]
                expected[i] += (utility(bids, mechanism(report))[i] - honest[i]).clamp_min(0) / 40
    assert torch.allclose(regret.detach(), expected, atol=1e-6)
    regret.sum().backward()
    assert any(float(parameter.grad.abs().sum()) > 0 for parameter in mechanism.parameters())


def test_kept_misreports_go_on_where_they_were(two_by_two: UniformBox) -> None:
    mechanism = network(two_by_two, scale=2.0)
    sample = two_by_two.sample(20, torch.Generator().manual_seed(0))
    mode = searched(keep=True)
    mode.prepare(two_by_two, sample, torch.Generator())
    assert torch.equal(mode.kept, sample)
    rows = slice(5, 15)
    visit(mode, mechanism, two_by_two, sample, rows)
    once = mode.search.climb(mechanism, two_by_two, sample[rows], sample[rows])
    assert torch.equal(mode.kept[rows], once)
    assert torch.equal(mode.kept[:5], sample[:5])
    visit(mode, mechanism, two_by_two, sample, rows)
    assert torch.equal(mode.kept[rows], mode.search.climb(mechanism, two_by_two, sample[rows], once))
    assert "kept" in mode.state_dict()
    assert not torch.equal(sample[rows], mode.kept[rows])


def test_the_local_mode_starts_at_the_truth_at_every_visit(two_by_two: UniformBox) -> None:
    mechanism, sample = network(two_by_two), two_by_two.sample(20, torch.Generator())
    mode = searched()
    mode.prepare(two_by_two, sample, torch.Generator())
    first, second = (visit(mode, mechanism, two_by_two, sample, slice(0, 10)) for _ in range(2))
    assert torch.equal(first, second)


def test_random_starts_are_kept_or_fresh(two_by_two: UniformBox) -> None:
    sample = two_by_two.sample(20, torch.Generator().manual_seed(0))
    kept = searched(25, 0.1, keep=True, random=True)
    kept.prepare(two_by_two, sample, torch.Generator().manual_seed(2))
    assert not torch.equal(kept.kept, sample)
    assert torch.equal(kept.kept, two_by_two.sample(20, torch.Generator().manual_seed(2)))
    fresh = searched(25, 0.1, keep=False, random=True)
    fresh.prepare(two_by_two, None, torch.Generator())
    assert fresh.kept is None
    assert float(visit(fresh, network(two_by_two, scale=2.0), two_by_two, sample, None).detach().min()) >= 0


def test_the_multiscale_misreport_is_a_step_of_the_drawn_length_along_the_gradient() -> None:
    setting = UniformBox(2, 2, [4.0, 4.0], [16.0, 7.0], "additive")
    mechanism, mode = network(setting, scale=2.0).double(), MultiscaleRegret(0.3, 2.0, False)
    values = setting.sample(40, torch.Generator().manual_seed(0)).double()
    (lengths,) = mode.begin(setting, values, None, torch.Generator().manual_seed(1))
    uniform = torch.rand(40, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(lengths, 0.3 * uniform.square())
    asked = values.clone().requires_grad_()
    found = mode.find(mechanism, setting, asked, (lengths,), mechanism(asked))
    width = torch.tensor([12.0, 3.0], dtype=torch.float64)
    _, gradient = utility_and_gradient(mechanism, values, values)
    inside = (found > setting.low).all(-1) & (found < setting.high).all(-1)
    assert int(inside.sum()) > 20
    move = ((found - values) / width)[inside]
    assert torch.allclose(move.norm(dim=-1), lengths[inside], atol=1e-6)
    cosine = torch.nn.functional.cosine_similarity(move, (gradient * width)[inside], dim=-1)
    assert torch.allclose(cosine, torch.ones_like(cosine))
    assert torch.equal(setting.project(found), found)


def test_a_wrong_multiscale_mode_is_refused() -> None:
    for arguments in ((0.0, 2.0), (0.3, -1.0)):
        with pytest.raises(ValueError, match="must be a positive number"):
            MultiscaleRegret(*arguments, False)
    with pytest.raises(ValueError, match="not convex"):
        MultiscaleRegret(0.3, 2.0, False).prepare(
            UniformUnion(2, 2, [[0.0, 0.3], [0.7, 1.0]], "additive"), None, torch.Generator()
        )


def test_a_local_mode_refuses_a_support_that_is_not_convex() -> None:
    gaps = UniformUnion(2, 2, [[0.0, 0.3], [0.7, 1.0]], "additive")
    with pytest.raises(ValueError, match=r"not convex.*regret\.assume_sufficient=true"):
        searched().prepare(gaps, None, torch.Generator())
    SearchedRegret(GradientAscent(1, AdamStep(0.05)), TruthfulStart(), False, True, True).prepare(
        gaps, None, torch.Generator()
    )
    searched(random=True).prepare(gaps, None, torch.Generator())


def test_keeping_misreports_needs_the_fixed_sample(two_by_two: UniformBox) -> None:
    with pytest.raises(ValueError, match="use data=fixed or regret"):
        searched(keep=True).prepare(two_by_two, None, torch.Generator())


@pytest.mark.parametrize("file", sorted((CONF / "regret").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_mode_gives_a_regret_for_every_bidder(file: Path) -> None:
    setting = UniformBox(3, 2, [0.0, 4.0], [1.0, 16.0], "additive")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        mode = instantiate(compose("config", overrides=[f"regret={file.stem}"]).regret)
    assert isinstance(mode, RegretMode)
    mechanism, sample = network(setting, scale=2.0), setting.sample(32, torch.Generator())
    mode.prepare(setting, sample, torch.Generator())
    regret = visit(mode, mechanism, setting, sample, slice(0, 16))
    assert regret.shape == (3,)
    assert float(regret.min()) >= 0
    assert regret.requires_grad
    state = mode.state_dict()
    if "kept" in state:
        assert torch.equal(setting.project(state["kept"]), state["kept"])
