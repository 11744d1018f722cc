"""The search itself: its parts, and that nothing but the instance, the seed and the tier decides what it finds."""

import copy

import pytest
import torch
from torch import Tensor

from tests.conftest import network
from truthful.auction import Outcome, deviation_utility
from truthful.auditing import find
from truthful.auditing.attack import MEMBERS, best_reports, search, start_at_truth, truth, try_pool
from truthful.auditing.climb import Points, best_of, climb, compass, scored
from truthful.auditing.columns import join
from truthful.auditing.find import find_misreports
from truthful.auditing.instances import Instances
from truthful.auditing.journal import Journal
from truthful.auditing.many_starts import many_starts
from truthful.auditing.tiers import FAST, STRONG, ManyStarts
from truthful.laws import PiecewiseUniform
from truthful.mechanisms import Mechanism
from truthful.settings import Independent, Setting, UniformBox


def instances(mechanism: Mechanism, setting: Setting, samples: int, seed: int = 0, double: bool = False) -> Instances:
    values = setting.sample(samples, torch.Generator().manual_seed(seed))
    if double:
        values, mechanism = values.double(), copy.deepcopy(mechanism).double()
    profiles = values.repeat_interleave(setting.n_bidders, 0)
    return Instances(mechanism, setting, profiles, torch.arange(setting.n_bidders).repeat(samples))


class Hill(Mechanism):
    """One bidder and a utility that is a concave quadratic of his report alone, highest at `top`."""

    def __init__(self, top: list[float]) -> None:
        super().__init__(1, len(top), "additive")
        self.top = torch.tensor(top)
        self.shape = torch.diag(torch.linspace(1, 30, len(top))) + 0.5

    def forward(self, bids: Tensor) -> Outcome:
        away = (bids - self.top).squeeze(-2)
        loss = torch.einsum("...i,ij,...j->...", away, self.shape.to(bids), away)
        return Outcome(torch.zeros_like(bids), loss.unsqueeze(-1))


def test_scores_are_deviation_utilities() -> None:
    setting = UniformBox(3, 2, [0.0, 4.0], [1.0, 16.0], "additive")
    mechanism = network(setting, scale=2.0)
    some = instances(mechanism, setting, 20)
    reports = setting.sample(20, torch.Generator().manual_seed(9))
    expected = deviation_utility(mechanism, some.profiles[::3], reports)
    got = some.utility(some.everyone, reports.flatten(0, 1))
    assert torch.allclose(got, expected.detach().flatten(), atol=1e-5)
    assert some.cost == 60
    _, gradient = some.utility_and_gradient(some.everyone, reports.flatten(0, 1))
    assert some.cost == 180
    point = reports.clone().requires_grad_()
    (exact,) = torch.autograd.grad(deviation_utility(mechanism, some.profiles[::3], point).sum(), point)
    assert torch.allclose(gradient, exact.flatten(0, 1), atol=1e-4)


@pytest.mark.parametrize("m", [1, 2, 5, 20])
def test_bfgs_climbs_a_hill_to_its_top_or_the_nearest_face(m: int) -> None:
    setting = UniformBox(1, m, 0.0, 2.0, "additive")
    inside, outside = Hill([0.5] * m), Hill([3.0] * m)
    for hill, best in ((inside, 0.5), (outside, 2.0)):
        some = instances(hill, setting, 8, double=True)
        reached, sharp = climb(some, truth(some), 60)
        assert not bool(sharp.any())
        assert torch.allclose(reached.report, torch.full_like(reached.report, best), atol=1e-3)


def test_a_climb_never_loses() -> None:
    setting = UniformBox(2, 3, 0.0, 1.0, "unit")
    some = instances(network(setting, scale=3.0), setting, 50)
    start = truth(some)
    before = start.utility.clone()
    last = before
    for iterations in (1, 3, 8):
        now = climb(some, start, iterations)[0].utility
        assert bool((now >= last).all())
        last = now
    assert float((last - before).max()) > 0
    assert torch.equal(start.utility, before)


def test_the_compass_needs_no_gradient() -> None:
    setting = UniformBox(1, 3, 0.0, 2.0, "additive")
    some = instances(Hill([0.5] * 3), setting, 8, double=True)
    reached = compass(some, truth(some), 200, 16, radius=0.5, smallest=1e-7, seed=0)
    assert torch.allclose(reached.report, torch.full_like(reached.report, 0.5), atol=1e-4)


def test_the_best_point_of_each_instance_is_the_first_of_equals() -> None:
    points = Points(
        torch.tensor([1, 0, 1, 0, 1]),
        torch.arange(5.0).unsqueeze(1),
        torch.tensor([2.0, 1.0, 3.0, 1.0, 3.0]),
        torch.zeros(5, dtype=torch.long),
    )
    assert best_of(2, points).report.flatten().tolist() == [1.0, 2.0]


def test_the_pool_carries_a_lie_from_one_instance_to_the_others() -> None:
    """A spike of profit at one report that only one instance knows of."""

    class Spike(Mechanism):
        def forward(self, bids: Tensor) -> Outcome:
            hit = ((bids[..., 0, :] - 0.123).abs() < 1e-4).all(-1)
            payment = torch.zeros_like(bids[..., 0])
            payment[..., 0] = -1.0 * hit
            return Outcome(torch.zeros_like(bids), payment + 0 * bids.sum(-1))

    setting = UniformBox(1, 2, 0.0, 1.0, "additive")
    some = instances(Spike(1, 2, "additive"), setting, 30)
    found = truth(some)
    found.report = found.report.clone()
    found.report[7] = 0.123
    found = scored(some, found)
    reports, offsets = best_reports(some, found, found.utility - truth(some).utility, 4)
    assert bool((try_pool(some, found, reports, offsets, FAST).utility == 1).all())


def test_every_member_can_find_something() -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    some = instances(network(setting, scale=4.0), setting, 200)
    found = best_of(len(some), join(start_at_truth(some, STRONG), search(some, STRONG, 1)))
    reports, offsets = best_reports(some, found, found.utility - truth(some).utility, 8)
    found = try_pool(some, found, reports, offsets, STRONG)
    assert set(found.member.tolist()) == set(range(len(MEMBERS)))


def attack(setting: Setting, values: Tensor, mechanism: Mechanism, seed: int = 5) -> find.Findings:
    return find_misreports(mechanism, setting, STRONG, values, [seed, seed + 1, 3], Journal(None, ""), lambda *_: None)


def test_order_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = UniformBox(2, 2, [0.0, 4.0], [1.0, 16.0], "additive")
    mechanism = network(setting, scale=1.5)
    values = setting.sample(60, torch.Generator().manual_seed(0))
    whole = attack(setting, values, mechanism).gain
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(attack(setting, values[order], mechanism).gain, whole[order], atol=1e-6)
    monkeypatch.setattr(find, "CHUNK", 17)
    assert torch.allclose(attack(setting, values, mechanism).gain, whole, atol=1e-6)


def test_seeds_differ_and_repeat() -> None:
    setting = Independent(2, 2, PiecewiseUniform([[0.0, 0.3], [0.7, 1.0]], [0.3, 0.3]), "additive")
    mechanism = network(setting, scale=3.0)
    values = setting.sample(30, torch.Generator().manual_seed(0))
    one, same, other = (attack(setting, values, mechanism, seed) for seed in (5, 5, 8))
    assert torch.equal(one.misreport, same.misreport)
    assert not torch.equal(one.misreport, other.misreport)
    assert torch.equal(setting.project(one.misreport.float()), one.misreport.float())


def test_single_and_double_precision_agree() -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, "unit")
    found = attack(setting, setting.sample(100, torch.Generator().manual_seed(0)), network(setting, scale=2.0))
    assert float((found.searched - found.rescored).abs().max()) < 2e-6
    assert bool((found.gain >= found.rescored - 1e-12).all())


def test_the_literatures_search_finds_what_the_portfolio_finds() -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    mechanism = network(setting, scale=2.0)
    some = instances(mechanism, setting, 10)
    many = many_starts(some, ManyStarts(starts=60, steps=100, first_length=0.1, last_length=0.001), seed=0)
    gain = (many.utility - truth(some).utility).view(10, 2)
    found = attack(setting, some.profiles[::2], mechanism)
    assert torch.allclose(gain.double(), found.gain, atol=1e-5)
    assert some.cost > 60 * 100 * 2 * 20


def test_a_journal_hands_back_what_was_done(tmp_path) -> None:
    path = tmp_path / "audit.partial"
    first = Journal(path, "x")
    assert first.part("a", lambda: [torch.ones(2)])[0].tolist() == [1, 1]
    first.save()

    def fail() -> None:
        raise AssertionError("computed again")

    assert Journal(path, "x").part("a", fail)[0].tolist() == [1, 1]
    with pytest.raises(AssertionError):
        Journal(path, "of another audit").part("a", fail)


def test_the_comparison_of_seeds_is_kept_and_in_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "DISAGREEMENT", 0.0)  # so that there is something to compare
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    values = setting.sample(30, torch.Generator().manual_seed(0))
    kept, shares = Journal(None, ""), []
    arguments = (network(setting, scale=3.0), setting, STRONG, values, [5, 6, 3], kept)
    first = find_misreports(*arguments, lambda _, share: shares.append(share))
    assert "compare 0" in kept._parts
    assert shares == sorted(shares)
    assert shares[-1] == 1.0 > shares[-2]
    again = find_misreports(*arguments, lambda *_: None)
    assert torch.equal(again.misreport, first.misreport)
    assert again.forward_passes == first.forward_passes
