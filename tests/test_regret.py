import copy
from pathlib import Path

import pytest
import torch

from tests.conftest import CONF, network, regret_mode
from tests.test_training import fit, make
from truthful.auction import deviation_utility, utility
from truthful.data import FixedSample
from truthful.laws import PiecewiseUniform
from truthful.regret import (
    AdamStep,
    BetterOf,
    ClimbingRegret,
    Curriculum,
    GradientAscent,
    GradientStep,
    Misreporter,
    Mixture,
    NearbyStart,
    NormalisedStep,
    ProbingRegret,
    QuasiNewton,
    RandomLength,
    RandomStart,
    Reciprocal,
    RegretMode,
    SearchedRegret,
    SignStep,
    SlopeRegret,
    TruthfulStart,
)
from truthful.regret.ascent import gradient_at_truth, utility_and_gradient
from truthful.regret.probing import best_entry, tilted
from truthful.settings import Independent, Setting, UniformBox

ALL = torch.Generator


def searched(steps: int = 1, length: float = 0.05, keep: bool = False, random: bool = False) -> SearchedRegret:
    ascent = GradientAscent(steps, AdamStep(length))
    return SearchedRegret(ascent, RandomStart() if random else TruthfulStart(), keep, not random, False)


def visit(mode: RegretMode, mechanism: torch.nn.Module, setting: Setting, sample: torch.Tensor, rows: slice | None):
    values = (sample if rows is None else sample[rows]).requires_grad_(mode.starts_at_truth)
    truthful = mechanism(values)
    begun = mode.begin(setting, values.detach(), rows, torch.Generator().manual_seed(5))
    misreport = mode.find(mechanism, setting, values, begun, None if mode.staged else truthful)
    mode.store(rows, mode.follow(setting, begun, misreport, torch.zeros_like(misreport)))
    return mode(mechanism, setting, values, truthful, misreport)


def one_step(step, keep: bool = False, start=None) -> SearchedRegret:
    return SearchedRegret(GradientAscent(1, step), start or TruthfulStart(), keep, True, False)


def gains(mechanism, values, misreport):
    with torch.no_grad():
        return deviation_utility(mechanism, values, misreport) - utility(values, mechanism(values))


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
    shared = gradient_at_truth(setting, values, mechanism(values))
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
    mechanism, mode = network(setting, scale=2.0).double(), regret_mode("multiscale")
    values = setting.sample(40, torch.Generator().manual_seed(0)).double()
    begun = mode.begin(setting, values, None, torch.Generator().manual_seed(1))
    uniform = torch.rand(40, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    lengths = 0.3 * uniform.square()
    asked = values.clone().requires_grad_()
    found = mode.find(mechanism, setting, asked, begun, mechanism(asked))
    width = torch.tensor([12.0, 3.0], dtype=torch.float64)
    _, gradient = utility_and_gradient(mechanism, values, values)
    inside = (found > setting.low).all(-1) & (found < setting.high).all(-1)
    assert int(inside.sum()) > 20
    move = ((found - values) / width)[inside]
    assert torch.allclose(move.norm(dim=-1), lengths[inside], atol=1e-6)
    cosine = torch.nn.functional.cosine_similarity(move, (gradient * width)[inside], dim=-1)
    assert torch.allclose(cosine, torch.ones_like(cosine))
    assert torch.equal(setting.project(found), found)


def test_a_sign_step_is_the_same_share_of_every_width() -> None:
    setting = UniformBox(1, 2, [4.0, 4.0], [16.0, 7.0], "additive")
    mechanism, values = network(setting, scale=2.0), torch.tensor([[[10.0, 5.5]]])
    move = GradientAscent(1, SignStep(0.05)).climb(mechanism, setting, values, values) - values
    assert torch.allclose(move.abs(), torch.tensor([0.6, 0.15]), atol=1e-5)


def test_wrong_numbers_are_refused(two_by_two: UniformBox) -> None:
    for part in (SignStep, NormalisedStep, NearbyStart, lambda n: RandomLength(SignStep(0.1), n)):
        with pytest.raises(ValueError, match="must be a positive number, got 0"):
            part(0.0)
    with pytest.raises(ValueError, match="must be a positive number, got -1"):
        SlopeRegret(-1.0, False)
    for combined in (Mixture, Curriculum):
        with pytest.raises(ValueError, match="above 0 and below 1, got 1"):
            combined(searched(), searched(), 1.0)
    with pytest.raises(ValueError, match=r"regret\.depth must be a whole number of at least 1, got 0"):
        Misreporter(0, 100, 1e-3)
    for counts in ((0, 1, 1), (1, -1, 1), (1, 1, -1)):
        with pytest.raises(ValueError, match="must be a whole number of at least"):
            ProbingRegret(0.3, 2.0, *counts, 0.1, False)
    with pytest.raises(ValueError, match=r"regret\.follow must be a positive number"):
        ProbingRegret(0.3, 2.0, 1, 1, 1, 0.0, False)
    with pytest.raises(ValueError, match="whole number of iterations"):
        QuasiNewton(0)


def test_a_nearby_start_lies_in_its_ball_and_in_the_support() -> None:
    setting = UniformBox(2, 2, [4.0, 4.0], [16.0, 7.0], "additive")
    values = setting.sample(500, torch.Generator().manual_seed(0))
    start = NearbyStart(0.1)(setting, values, torch.Generator().manual_seed(1))
    away = ((start - values) / torch.tensor([12.0, 3.0])).abs()
    assert 0.09 < float(away.max()) < 0.1001
    assert torch.equal(setting.project(start), start)


def test_the_better_of_two_is_kept_and_the_truth_if_both_lose(two_by_two: UniformBox) -> None:
    mechanism, sample = network(two_by_two, scale=3.0), two_by_two.sample(60, torch.Generator().manual_seed(0))
    parts = [one_step(SignStep(0.5), keep=True), one_step(NormalisedStep(0.4))]
    apart = [one_step(SignStep(0.5)), one_step(NormalisedStep(0.4))]
    mode = BetterOf(*parts)
    mode.prepare(two_by_two, sample, torch.Generator())
    for other in apart:
        other.prepare(two_by_two, sample, torch.Generator())
    rows = slice(20, 60)
    visit(mode, mechanism, two_by_two, sample, rows)
    kept = parts[0].kept[rows]
    found = [other.find(mechanism, two_by_two, sample[rows], (sample[rows],)) for other in apart]
    best = torch.stack([gains(mechanism, sample[rows], one) for one in found]).amax(0)
    assert torch.allclose(gains(mechanism, sample[rows], kept), best.clamp_min(0), atol=1e-6)
    from_each = [int((kept == one).all(-1).sum()) for one in [*found, sample[rows]]]
    assert min(from_each) > 0, "the test needs cases of all three"
    assert torch.equal(parts[0].kept[:20], sample[:20])


def test_what_is_more_than_a_search_is_no_part_of_another_mode() -> None:
    parts = [regret_mode(name) for name in ("probing", "misreporter", "gradient", "reciprocal", "curriculum")]
    for part in parts:
        for combine in (
            Reciprocal,
            lambda mode: BetterOf(searched(), mode),
            lambda mode: Mixture(mode, searched(), 0.5),
        ):
            with pytest.raises(ValueError, match=f"{type(part).__name__} cannot be a part of another mode"):
                combine(part)
    BetterOf(searched(), BetterOf(searched(), searched()))
    Curriculum(parts[0], Curriculum(parts[3], parts[1], 0.5), 0.5)


def test_a_mixture_gives_its_first_rows_to_the_second_mode(two_by_two: UniformBox) -> None:
    mechanism, sample = network(two_by_two, scale=3.0), two_by_two.sample(40, torch.Generator().manual_seed(0))
    near, far = one_step(SignStep(0.05), keep=True), searched(2, 0.1, keep=True, random=True)
    mode = Mixture(near, far, share=0.25)
    mode.prepare(two_by_two, sample, torch.Generator().manual_seed(3))
    start = far.kept.clone()
    rows = slice(20, 40)
    visit(mode, mechanism, two_by_two, sample, rows)
    moved = (far.kept != start).flatten(1).any(1).nonzero().flatten().tolist()
    assert moved == [20, 21, 22, 23, 24]
    searched_far = far.search.climb(mechanism, two_by_two, sample[20:25], start[20:25])
    assert torch.equal(far.kept[20:25], searched_far)
    step = near.search.climb(mechanism, two_by_two, sample[25:40], sample[25:40])
    assert torch.equal(near.kept[25:40], step)


def test_a_curriculum_hands_over_with_what_was_kept(two_by_two: UniformBox) -> None:
    first, second = one_step(SignStep(0.05), keep=True), one_step(SignStep(0.01), keep=True)
    mode = Curriculum(first, second, fraction=0.5)
    mode.prepare(two_by_two, two_by_two.sample(8, torch.Generator()), torch.Generator())
    assert mode.at(0.0) is mode.at(0.49) is first
    assert mode.at(0.5) is mode.at(1.0) is second
    first.store(slice(0, 4), torch.full((4, 2, 2), 0.25))
    assert torch.equal(second.kept[:4], torch.full((4, 2, 2), 0.25))


def test_a_curriculum_hands_over_to_a_part_that_keeps(two_by_two: UniformBox) -> None:
    mode = regret_mode("curriculum")
    mode.prepare(two_by_two, two_by_two.sample(8, torch.Generator()), torch.Generator())
    mode.double()
    mode.at(0.0).store(slice(0, 4), torch.full((4, 2, 2), 0.25))
    assert torch.equal(mode.at(1.0).first.kept[:4], torch.full((4, 2, 2), 0.25).double())


@pytest.mark.parametrize("demand", ["additive", "unit"])
def test_the_reciprocal_gain_is_that_of_the_lie_as_the_truth(demand: str) -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, demand)
    mechanism = network(setting, scale=3.0).double()
    values = setting.sample(30, torch.Generator().manual_seed(0)).double()
    mode = Reciprocal(one_step(SignStep(0.2)))
    mode.prepare(setting, None, torch.Generator())
    regret = visit(mode, mechanism, setting, values, None)
    lie = mode.mode.search.climb(mechanism, setting, values, values)
    expected = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        for profile, misreport in zip(values, lie, strict=True):
            for i in range(2):
                swapped = profile.clone()
                swapped[i] = misreport[i]
                for true, reported in ((profile, swapped), (swapped, profile)):
                    gain = utility(true, mechanism(reported))[i] - utility(true, mechanism(true))[i]
                    expected[i] += gain.clamp_min(0) / 30
    assert torch.allclose(regret.detach(), expected, atol=1e-12)


def test_the_slope_is_that_of_a_small_lie() -> None:
    setting = UniformBox(2, 2, [4.0, 4.0], [16.0, 7.0], "additive")
    mechanism = network(setting, scale=2.0).double()
    values = setting.sample(50, torch.Generator().manual_seed(0)).double()
    values[0, 0] = torch.tensor([16.0, 4.0])
    mode = SlopeRegret(0.01, False)
    regret = visit(mode, mechanism, setting, values, None)
    slope = gradient_by_differences(mechanism, values.detach(), values.detach()) * torch.tensor([12.0, 3.0])
    outwards = slope[0, 0].sign() == torch.tensor([1.0, -1.0])
    assert bool(outwards.any()), "the test needs a slope that points out of the box"
    slope[0, 0] = torch.where(outwards, 0.0, slope[0, 0])
    assert torch.allclose(regret.detach(), 0.01 * slope.norm(dim=-1).mean(0), atol=1e-6)
    regret.sum().backward()
    assert all(parameter.grad is not None for parameter in mechanism.parameters())


def test_quasi_newton_never_loses_and_ends_where_there_is_no_slope() -> None:
    setting = UniformBox(2, 3, 0.0, 1.0, "additive")
    mechanism = network(setting, scale=3.0).double()
    values = setting.sample(200, torch.Generator().manual_seed(0)).double()
    reached = gains(mechanism, values, values)
    slopes = []
    for iterations in (1, 4, 20):
        search = QuasiNewton(iterations)
        end = search.climb(mechanism, setting, values, values)
        assert torch.equal(setting.project(end), end)
        before, reached = reached, gains(mechanism, values, end)
        assert bool((reached >= before - 1e-12).all())
        assert torch.allclose(search(mechanism, setting, values, values).gain, reached.clamp_min(0))
        _, slope = utility_and_gradient(mechanism, values, end)
        outwards = ((end <= 0) & (slope < 0)) | ((end >= 1) & (slope > 0))
        slopes.append(torch.where(outwards, 0.0, slope).norm(dim=-1))
    assert float((slopes[0] < 1e-4).double().mean()) < 0.6
    assert float((slopes[2] < 1e-4).double().mean()) > 0.95


def test_probing_takes_the_best_of_probes_kept_and_others(two_by_two: UniformBox) -> None:
    setting = UniformBox(2, 2, [4.0, 4.0], [16.0, 7.0], "additive")
    mechanism = network(setting, scale=2.0).double()
    sample = setting.sample(60, torch.Generator().manual_seed(0)).double()
    mode = ProbingRegret(0.3, 2.0, probes=2, others=1, tilts=0, follow=0.1, assume_sufficient=False)
    mode.prepare(setting, sample, torch.Generator())
    mode.kept.copy_(setting.sample(60, torch.Generator().manual_seed(1)).double())
    rows = slice(20, 60)
    values = sample[rows].clone().requires_grad_()
    begun = mode.begin(setting, values.detach(), rows, torch.Generator().manual_seed(2))
    (other, kept), lengths, _, _ = begun
    lengths = lengths.movedim(-1, 0)
    assert torch.equal(kept, mode.kept[rows])
    assert sorted(map(tuple, other.flatten(1).tolist())) == sorted(map(tuple, sample[rows].flatten(1).tolist()))
    assert bool((lengths[0] <= 0.3 * 0.25).all())
    assert bool((lengths[1] >= 0.3 * 0.25).all() and (lengths[1] <= 0.3).all())
    found = mode.find(mechanism, setting, values, begun, mechanism(values))
    values, width = values.detach(), torch.tensor([12.0, 3.0], dtype=torch.float64)
    _, slope = utility_and_gradient(mechanism, values, values)
    direction = slope * width / (slope * width).norm(dim=-1, keepdim=True)
    probes = [setting.project(values + length.unsqueeze(-1) * direction * width) for length in lengths]
    scores = torch.stack([gains(mechanism, values, one) for one in (*probes, other, kept)])
    assert torch.allclose(gains(mechanism, values, found), scores.amax(0), atol=1e-12)
    assert set(scores.argmax(0).flatten().tolist()) == {0, 1, 2, 3}, "the test needs cases of all"


@pytest.mark.parametrize(("others", "entries"), [(0, 0), (1, 128), (3, 128)])
def test_to_one_bidder_a_mechanism_is_a_menu(others: int, entries: int) -> None:
    setting = UniformBox(1, 2, [4.0, 4.0], [16.0, 7.0], "additive")
    mechanism = network(setting, scale=2.0).double()
    values = setting.sample(200, torch.Generator().manual_seed(0)).double().requires_grad_()
    mode = ProbingRegret(0.3, 2.0, probes=1, others=others, tilts=1, follow=0.1, assume_sufficient=False)
    mode.prepare(setting, None, torch.Generator())
    begun = mode.begin(setting, values.detach(), None, torch.Generator().manual_seed(2))
    (tilt,), _, _, menu = begun
    found = mode.find(mechanism, setting, values, begun, mechanism(values))
    values = values.detach()
    reached = gains(mechanism, values, found)
    assert bool((reached >= gains(mechanism, values, tilt)).all())
    assert [types.shape[1] for types in menu] == [entries] * (others > 0)
    for types in menu:
        assert bool((types == types[:1]).all()), "all profiles have the same menu"
        assert set(map(tuple, types[0].flatten(1).tolist())) <= set(map(tuple, values.flatten(1).tolist()))
        entry, worth = best_entry(mechanism, values, types[0])
        each = torch.stack([gains(mechanism, values, one.expand_as(values)) for one in types[0]])
        assert torch.allclose(gains(mechanism, values, entry), each.amax(0), atol=1e-12)
        assert torch.allclose(worth - utility(values, mechanism(values)), each.amax(0), atol=1e-12)
        assert bool((reached >= each.amax(0) - 1e-12).all())
        assert bool((reached == gains(mechanism, values, entry)).any()), "the test needs cases in which an entry wins"


def test_what_climbing_tries_and_that_it_takes_the_best() -> None:
    setting = UniformBox(2, 2, [4.0, 4.0], [16.0, 7.0], "additive")
    width = torch.tensor([12.0, 3.0], dtype=torch.float64)
    mechanism = network(setting, scale=2.0).double()
    sample = setting.sample(1300, torch.Generator().manual_seed(0)).double()
    mode = ClimbingRegret(tries=12, reach=0.3, power=2.0, assume_sufficient=False)  # one of each twelfth
    mode.prepare(setting, sample, torch.Generator())
    mode.kept.copy_(setting.sample(1300, torch.Generator().manual_seed(1)))
    mode.direction.copy_(torch.randn(1300, 2, 2, generator=torch.Generator().manual_seed(3)))
    mode.direction[:700, 0] = 0.0  # where the kept report did not gain
    rows = slice(100, 1300)
    values, kept, direction = sample[rows].clone().requires_grad_(), mode.kept[rows], mode.direction[rows]
    begun = mode.begin(setting, values.detach(), rows, torch.Generator().manual_seed(2))
    assert begun[-1] == (), "a menu is for one bidder"
    found = mode.find(mechanism, setting, values, begun, mechanism(values))
    values = values.detach()
    _, slope = utility_and_gradient(mechanism, values, values)
    slope = slope * width / (slope * width).norm(dim=-1, keepdim=True)
    candidates = mode.candidates(setting, values, begun, slope)
    scores = torch.stack([gains(mechanism, values, one) for one in candidates])
    assert torch.allclose(gains(mechanism, values, found), scores.amax(0), atol=1e-12)
    assert set(scores.argmax(0).flatten().tolist()) == set(range(13)), "the test needs cases of all"
    assert bool(((candidates >= setting.low) & (candidates <= setting.high)).all())
    first, *moves, one_bound, another_bound, probe, another_probe, another, tilt = candidates
    assert torch.equal(first, kept)
    start, way = kept.clone(), direction.clone()
    start[:600, 0], way[:600, 0] = values[:600, 0], slope[:600, 0]
    for report, origin, along in [*((one, start, way) for one in moves), (probe, values, slope)]:
        move = (report - origin) / width
        share = move.norm(dim=-1) / along.norm(dim=-1)
        free = ((report > setting.low) & (report < setting.high)).all(-1)
        assert bool((share[free] <= 0.3).all())
        assert torch.allclose(move[free], (share.unsqueeze(-1) * along)[free], atol=1e-9)
        assert 0.02 < float(share[free].median()) < 0.1, (
            "the median of .3 s^2 is .075, less where long ones leave the box"
        )
    assert not torch.equal(probe, another_probe)
    for report in (one_bound, another_bound):
        moved = report != kept
        assert bool((moved.sum(-1) == 1).all())
        at_bound = torch.where(moved, (report == setting.high).double(), torch.nan)
        assert at_bound.nanmean((0, 1)).tolist() == pytest.approx([0.5] * 2, abs=0.05)
        assert bool((~moved | (report == setting.low) | (report == setting.high)).all())
        assert float(moved[..., 0].double().mean()) == pytest.approx(0.5, abs=0.05)
    assert sorted(another.flatten(1).tolist()) == sorted(values.flatten(1).tolist())
    up = (tilt > values).all(-1)
    assert bool((up | (tilt < values).all(-1)).all())
    share = (tilt - values) / (torch.where(up.unsqueeze(-1), setting.high, setting.low) - values)
    assert torch.allclose(share[..., 0], share[..., 1], atol=1e-6)
    assert float(share.median()) == pytest.approx(1 - 0.5**3, abs=0.02)


def test_climbing_without_a_fixed_sample_starts_at_the_truth() -> None:
    setting = UniformBox(2, 3, 0.0, 1.0, "additive")
    values = setting.sample(500, torch.Generator().manual_seed(0))
    mode = ClimbingRegret(12, 0.3, 2.0, False)
    with pytest.warns(UserWarning, match="keeps no misreports"):
        mode.prepare(setting, None, torch.Generator())
    begun = mode.begin(setting, values, None, torch.Generator().manual_seed(2))
    slope = torch.full_like(values, 3**-0.5)
    candidates = mode.candidates(setting, values, begun, slope)
    assert len(candidates) == 12
    assert bool((candidates[:6] >= values).all()), "moves go up the slope at the truth"
    assert float((candidates[:6] > values).all(-1).double().mean()) > 0.9
    at_bound = candidates[6:8] != values
    assert bool((at_bound.sum(-1) == 1).all())
    assert set(candidates[6:8][at_bound].tolist()) == {0.0, 1.0}


def test_a_curriculum_may_hand_over_to_climbing_and_back() -> None:
    for first, second in (
        (searched(keep=True), climbing()),
        (climbing(), searched(keep=True)),
        (climbing(), climbing()),
    ):
        module = make(8, regret=Curriculum(first, second, 0.5), data=FixedSample(64))
        before = module.data.sample.clone()
        fit(module)
        assert not torch.equal(second.kept, before)
        assert torch.equal(first.kept, second.kept)


def climbing() -> ClimbingRegret:
    return ClimbingRegret(2, 0.3, 2.0, False)


def first_visit(setting: UniformBox, mode: RegretMode) -> tuple:
    """An iteration: what it begins with and finds, the slope there, and where that gains."""
    module = make(1, setting=setting, mechanism=network(setting, scale=4.0), regret=mode, data=FixedSample(16))
    mechanism = copy.deepcopy(module.mechanism)
    _, slope = utility_and_gradient(mechanism, module.data.sample, module.data.sample)
    module.data.sample[:8] = torch.where(slope > 0, setting.high, setting.low).float()[:8]  # no move leaves a corner
    sample = module.data.sample.clone()
    mode.kept.copy_(sample)
    begun = mode.begin(setting, sample, slice(0, 16), module.starts())
    asked = sample.clone().requires_grad_()
    found = mode.find(mechanism, setting, asked, begun, mechanism(asked))
    fit(module)
    _, slope = utility_and_gradient(mechanism, sample, found)
    gaining = (gains(mechanism, sample, found) > 0).unsqueeze(-1)
    assert 0 < int(gaining.sum()) < gaining.numel(), "the test needs both cases"
    return begun, found, slope, gaining


def test_what_climbing_keeps() -> None:
    setting = UniformBox(2, 2, [4.0, 4.0], [16.0, 7.0], "additive")
    mode = ClimbingRegret(2, 0.9, 0.1, False)
    sample = setting.sample(16, torch.Generator().manual_seed(0))
    mode.prepare(setting, sample, torch.Generator())
    assert torch.equal(mode.kept, sample)
    assert not bool(mode.direction.any())
    _, found, slope, gaining = first_visit(setting, mode)
    outwards = ((found <= setting.low) & (slope < 0)) | ((found >= setting.high) & (slope > 0))
    slope = torch.where(outwards, 0.0, slope * torch.tensor([12.0, 3.0]))
    assert bool(outwards.any()), "the test needs reports at the bounds"
    assert torch.equal(mode.kept, found)
    expected = torch.where(gaining, slope / slope.norm(dim=-1, keepdim=True).clamp_min(1e-12), 0.0)
    assert torch.allclose(mode.direction, expected, atol=1e-5)


def test_a_tilted_report_goes_towards_a_corner_with_all_items_alike() -> None:
    setting = UniformBox(2, 3, [4.0, 4.0, 0.0], [16.0, 7.0, 1.0], "additive")
    values = setting.sample(4000, torch.Generator().manual_seed(0)).double()
    report = tilted(setting, values, torch.Generator().manual_seed(1))
    up = (report > values).all(-1)
    assert bool((up | (report < values).all(-1)).all())
    assert float(up.double().mean()) == pytest.approx(0.5, abs=0.03)
    bound = torch.where(up.unsqueeze(-1), setting.high, setting.low)
    share = (report - values) / (bound - values)
    assert torch.allclose(share, share[..., :1].expand_as(share), atol=1e-6)
    assert float(share.median()) == pytest.approx(1 - 0.5**3, abs=0.01)
    assert torch.equal(setting.project(report), report)
    mode = ProbingRegret(0.3, 2.0, 1, 0, 2, 0.1, False)
    mode.prepare(setting, None, torch.Generator())
    ready, *_ = mode.begin(setting, values, None, torch.Generator())
    assert len(ready) == 2
    assert not torch.equal(*ready)


def test_a_probed_misreport_follows_its_slope() -> None:
    setting = UniformBox(2, 2, [4.0, 4.0], [16.0, 7.0], "additive")
    mode = ProbingRegret(0.9, 0.1, probes=1, others=0, tilts=0, follow=0.1, assume_sufficient=False)
    begun, found, slope, gaining = first_visit(setting, mode)
    width = torch.tensor([12.0, 3.0])
    direction = slope * width / (slope * width).norm(dim=-1, keepdim=True)
    moved = setting.project(found + begun[2].unsqueeze(-1) * direction * width)
    assert torch.allclose(mode.kept, torch.where(gaining, moved, found), atol=1e-4)


def test_a_misreporter_learns_to_lie(two_by_two: UniformBox) -> None:
    mechanism, mode = network(two_by_two, scale=3.0), regret_mode("misreporter")
    mode.prepare(two_by_two, None, torch.Generator().manual_seed(0))
    values = two_by_two.sample(256, torch.Generator().manual_seed(1))
    before = gains(mechanism, values, mode.find(mechanism, two_by_two, values, ())).mean()
    for _ in range(200):
        report = mode.find(mechanism, two_by_two, values, ())
    assert float(gains(mechanism, values, report).mean()) > float(before) + 0.05
    assert torch.equal(two_by_two.project(report), report)
    assert {"powers", "network.0.weight", "mean.0.weight", "square.0.weight"} <= mode.state_dict().keys()


def test_a_local_mode_refuses_a_support_that_is_not_convex() -> None:
    gaps = Independent(2, 2, PiecewiseUniform([[0.0, 0.3], [0.7, 1.0]], [0.3, 0.3]), "additive")
    with pytest.raises(ValueError, match=r"not convex.*assume_sufficient=true"):
        searched().prepare(gaps, None, torch.Generator())
    SearchedRegret(GradientAscent(1, AdamStep(0.05)), TruthfulStart(), False, True, True).prepare(
        gaps, None, torch.Generator()
    )
    searched(random=True).prepare(gaps, None, torch.Generator())


def test_keeping_misreports_needs_the_fixed_sample(two_by_two: UniformBox) -> None:
    with pytest.raises(ValueError, match="use data=fixed, or keep=false"):
        searched(keep=True).prepare(two_by_two, None, torch.Generator())


@pytest.mark.parametrize("file", sorted((CONF / "regret").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_mode_gives_a_regret_for_every_bidder(file: Path) -> None:
    setting = UniformBox(3, 2, [0.0, 4.0], [1.0, 16.0], "additive")
    mode = regret_mode(file.stem)
    assert isinstance(mode, RegretMode)
    mechanism, sample = network(setting, scale=2.0), setting.sample(32, torch.Generator())
    mode.prepare(setting, sample, torch.Generator())
    mode = mode.at(0.0)
    regret = visit(mode, mechanism, setting, sample, slice(0, 16))
    assert regret.shape == (3,)
    assert float(regret.detach().min()) >= 0
    assert regret.requires_grad != mode.needs_theorem
    state = mode.state_dict()
    if "kept" in state:
        assert torch.equal(setting.project(state["kept"]), state["kept"])
