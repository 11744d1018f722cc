import hashlib
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

from tests.conftest import ROOT, interrupt_audit, network
from truthful import audit, auditing
from truthful.auction import Outcome, deviation_utility, utility
from truthful.auditing import proving
from truthful.laws import PiecewiseUniform
from truthful.mechanisms import FirstPrice, Mechanism, RegretNet, SecondPrice
from truthful.settings import Independent, UniformBox
from truthful.streams import Stream, generator


def posted_prices(bids: Tensor) -> tuple[Tensor, Tensor]:
    """Each item at .6 to the first bidder who wants it."""
    wants = (bids >= 0.6).to(bids)
    allocation = wants * (wants.cumsum(-2) <= 1)
    return allocation, 0.6 * allocation.sum(-1)


def vcg(bids: Tensor) -> Outcome:
    """Unit demand, two bidders, two items: the better of the two assignments; each pays what he costs the other."""
    straight = bids[:, 0, 0] + bids[:, 1, 1] >= bids[:, 0, 1] + bids[:, 1, 0]
    swapped = torch.eye(2).to(bids).flip(0)
    allocation = torch.where(straight[:, None, None], torch.eye(2).to(bids), swapped)
    got = (allocation * bids).sum(-1)
    return Outcome(allocation, bids.amax(-1).flip(-1) - got.flip(-1))


@pytest.mark.parametrize("tier", ["fast", "strong"])
def test_second_price_has_no_regret(two_by_two: UniformBox, tier: str) -> None:
    report = audit(SecondPrice(2, 2, "additive", reserve=0.5), two_by_two, tier, 500, 0)
    assert report.regret == report.regret_max == report.regret_sum == 0
    assert report.flags == ["zero_gradients"]
    assert report.revenue == pytest.approx(5 / 6, abs=5 * report.revenue_se)
    assert report.revenue_under_misreports == report.revenue


class Bribe(RegretNet):
    """Pays .9 for a report of (.9, .1), which nothing but `forward` knows."""

    def forward(self, bids: Tensor) -> Outcome:
        outcome = super().forward(bids)
        near = ((bids - torch.tensor([0.9, 0.1]).to(bids)).abs() < 1e-4).all(-1)
        return Outcome(outcome.allocation, outcome.payment - 0.9 * near)


class NoLongerTruthful(SecondPrice):
    """Inherits the claim of a theorem, not the rule that it is about."""

    def forward(self, bids: Tensor) -> Outcome:
        outcome = super().forward(bids)
        return Outcome(outcome.allocation, outcome.payment * 0.5 + 0.5 * (outcome.allocation * bids).sum(-1))


def test_a_subclass_inherits_no_proof(two_by_two: UniformBox) -> None:
    single = UniformBox(1, 2, 0.0, 1.0, "additive")
    bribe = Bribe(**single.shape, depth=1, width=8, activation=torch.nn.Tanh(), unit_demand_scores=2)
    for report in (
        audit(bribe, single, "certified", 4, 0),
        audit(NoLongerTruthful(2, 2, "additive", reserve=0.0), two_by_two, "certified", 20, 0),
    ):
        assert "not_certified" in report.flags
        assert report.instances.upper is None


def second_price(bids: Tensor) -> tuple[Tensor, Tensor]:
    outcome = SecondPrice(2, 2, "additive", reserve=0.5)(bids)
    return outcome.allocation, outcome.payment


def test_a_rule_may_change_its_bids(two_by_two: UniformBox) -> None:
    def in_place(bids: Tensor) -> tuple[Tensor, Tensor]:
        bids[bids < 0.5] = 0
        return second_price(bids)

    one, other = (audit(rule, two_by_two, "fast", 50, 0) for rule in (second_price, in_place))
    assert one.as_dict() | {"seconds": 0} == other.as_dict() | {"seconds": 0}
    assert torch.equal(one.instances.values, other.instances.values)


class Pair(torch.nn.Module):
    """A module that is no Mechanism."""

    def __init__(self, mechanism: Mechanism) -> None:
        super().__init__()
        self.mechanism = mechanism

    def forward(self, bids: Tensor) -> tuple[Tensor, Tensor]:
        outcome = self.mechanism(bids)
        return outcome.allocation, outcome.payment


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_modules_of_either_precision_and_in_training_mode(two_by_two: UniformBox, dtype: torch.dtype) -> None:
    wanted = audit(network(two_by_two, scale=2.0), two_by_two, "fast", 50, 0).regret
    converted = network(two_by_two, scale=2.0).to(dtype)
    assert audit(converted, two_by_two, "fast", 50, 0).regret == pytest.approx(wanted, rel=1e-4)
    foreign = torch.nn.Sequential(torch.nn.Dropout(0.5), Pair(converted)).train()
    report = audit(foreign, two_by_two, "fast", 50, 0)
    assert report.regret == pytest.approx(wanted, rel=1e-3)
    assert report.flags == []
    assert foreign.training
    assert next(foreign.parameters()).dtype == dtype
    closure = audit(lambda bids: converted(bids), two_by_two, "fast", 50, 0)
    assert closure.regret == pytest.approx(wanted, rel=1e-3)
    assert ("single_precision" in closure.flags) == (dtype == torch.float32)


def test_a_learned_price_has_no_gradient_in_the_bids(two_by_two: UniformBox) -> None:
    price = torch.nn.Parameter(torch.tensor(0.6))

    def posted(bids: Tensor) -> tuple[Tensor, Tensor]:
        allocation = posted_prices(bids)[0]
        return allocation, price * allocation.sum(-1)

    report = audit(posted, two_by_two, "fast", 20, 0)
    assert report.regret == pytest.approx(0, abs=1e-6)
    assert "no_gradients" in report.flags
    with pytest.raises(ValueError, match="follows gradients, and the mechanism has none"):
        audit(posted, two_by_two, "paper", 2, 0)


def test_reports_without_an_outcome_are_left_out(two_by_two: UniformBox) -> None:
    def sometimes(bids: Tensor) -> tuple[Tensor, Tensor]:
        allocation, payment = posted_prices(bids)
        return allocation, torch.where(bids[..., 0] < 0.001, torch.nan, payment)

    report = audit(sometimes, two_by_two, "strong", 20, 0)
    assert "not_finite" in report.flags
    assert report.regret == 0
    with pytest.raises(ValueError, match=r"NaN or infinite in \d+ of 5000 profiles"):
        audit(sometimes, two_by_two, "fast", 5000, 0)


def test_no_doubt_is_raised_where_the_refinement_settles_it() -> None:
    setting = UniformBox(2, 1, 0.0, 1.0, "additive")
    report = audit(FirstPrice(2, 1, "additive", reserve=0.0), setting, "strong", 50, 0)
    assert report.seed_gap < 1e-4
    assert "more_starts_gain" not in report.flags
    assert "seeds_disagree" not in report.flags
    assert report.forward_passes == pytest.approx(report.stages[-1].forward_passes, abs=1)


def test_a_bound_is_never_rounded_down() -> None:
    for number in (1.0040309, 0.0484, 12345.6, 9.9999999, 1e-12):
        assert number <= float(proving.round_up(number)) <= number * 1.0011
    assert proving.round_up(0.0) == "0"


def test_a_theorem_stands_in_for_a_certificate(two_by_two: UniformBox) -> None:
    report = audit(SecondPrice(2, 2, "additive", reserve=0.5), two_by_two, "certified", 20, 0)
    assert report.certificate["method"] == "theorem"
    assert "Vickrey" in report.certificate["statement"]
    assert float(report.instances.upper.max()) == 0


@pytest.mark.parametrize("demand", ["additive", "unit"])
def test_the_certified_tier_brackets_the_regret(demand: str) -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, demand)
    report = audit(network(setting, scale=2.0), setting, "certified", 6, 0)
    said, audited = report.certificate["all_reports"], report.instances
    assert (said["instances"], said["closed"], said["open"]) == (12, 12, 0)
    assert bool((audited.gain <= audited.upper).all())
    assert float((audited.upper - audited.gain).max()) <= 1e-4
    assert said["max_lower"] == report.regret_max <= said["max_upper"] == report.certificate["population"]["regret"]
    assert said["regret_lower"] == pytest.approx(report.regret)
    assert report.certificate["population"]["share"] == 3 / 6
    every = report.certificate["all_values"]
    assert (every["opponents"], every["instances"], every["closed"]) == (6, 12, 12)
    assert float(audited.gain.max()) <= every["max_upper"] <= every["max_lower"] + 1e-4
    assert "open" not in report.flags


def test_one_bidders_regret_is_certified_for_the_whole_game() -> None:
    setting = UniformBox(1, 2, 0.0, 1.0, "additive")
    report = audit(network(setting, scale=3.0), setting, "certified", 50, 0)
    every = report.certificate["all_values"]
    assert "in the whole game" in every["statement"]
    assert report.regret_max <= every["max_upper"] <= every["max_lower"] + 1e-4
    assert audit(network(setting, scale=3.0), setting, "fast", 500, 1).regret_max <= every["max_upper"]


def test_three_items_are_certified_and_four_for_small_lies_only() -> None:
    setting = UniformBox(1, 3, 0.0, 1.0, "additive")
    report = audit(network(setting), setting, "certified", 2, 0)
    assert report.certificate["all_reports"]["closed"] == 2
    setting = UniformBox(1, 4, 0.0, 1.0, "additive")
    report = audit(network(setting, scale=2.0), setting, "certified", 3, 0)
    small, every = report.certificate["small_lies"], report.certificate["all_reports"]
    assert (small["radius"], small["closed"]) == (0.01, 3)
    assert (every["open"], "open" in report.flags) == (3, True)
    assert report.regret_max <= every["max_upper"] <= 4
    assert small["max_upper"] <= every["max_upper"]


def test_truthful_auctions_of_other_people_have_no_regret(two_by_two: UniformBox) -> None:
    report = audit(posted_prices, two_by_two, "strong", 100, 0)
    assert report.regret_max == 0
    assert report.flags == ["no_gradients"]
    report = audit(vcg, UniformBox(2, 2, 0.0, 1.0, "unit"), "strong", 100, 0)
    assert report.regret_max <= 1e-7
    assert report.revenue == pytest.approx(1 / 10, abs=5 * report.revenue_se)


def test_first_price_has_its_closed_form() -> None:
    """Truthful first price: the winner gains v(1) - v(2) by bidding just above v(2), a supremum, not attained."""
    setting = UniformBox(3, 1, 0.0, 1.0, "additive")
    report = audit(FirstPrice(3, 1, "additive", reserve=0.0), setting, "strong", 300, 0)
    values = setting.sample(300, generator(0, Stream.AUDIT)).double()[..., 0].sort(-1).values
    exact = values[:, -1] - values[:, -2]
    assert torch.allclose(report.instances.gain.sum(-1), exact, atol=1e-6)
    assert report.regret == pytest.approx(report.regret_sum / 3)
    assert report.revenue == pytest.approx(float(values[:, -1].mean()), abs=1e-6)


def test_first_price_of_several_items_too() -> None:
    setting = UniformBox(2, 3, 0.0, 1.0, "additive")
    report = audit(FirstPrice(2, 3, "additive", reserve=0.3), setting, "strong", 50, 0)
    values = report.instances.values
    exact = (values.amax(-2) - values.amin(-2).clamp_min(0.3)).clamp_min(0).sum(-1)
    assert torch.allclose(report.instances.gain.sum(-1), exact, atol=1e-6)
    assert "gradients_mislead" in report.flags


def test_a_numpy_auction_is_audited_without_gradients() -> None:
    def first_price(bids: Tensor) -> tuple[numpy.ndarray, numpy.ndarray]:
        given = numpy.asarray(bids)
        wins = given == given.max(1, keepdims=True)
        return wins.astype(float), (wins * given).sum(-1)

    report = audit(first_price, UniformBox(2, 1, 0.0, 1.0, "additive"), "strong", 50, 0)
    values = report.instances.values[..., 0]
    assert torch.allclose(report.instances.gain.sum(-1), (values[:, 0] - values[:, 1]).abs(), atol=1e-6)
    assert "no_gradients" in report.flags


@pytest.mark.parametrize("demand", ["additive", "unit"])
def test_the_attack_agrees_with_a_grid(demand: str) -> None:
    setting = UniformBox(2, 2, [0.0, 4.0], [1.0, 16.0], demand)
    mechanism = network(setting, scale=1.5)
    report = audit(mechanism, setting, "strong", 40, 3)
    values = setting.sample(40, generator(3, Stream.AUDIT)).double()
    axis = torch.linspace(0, 1, 81, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    low, high = setting.bounds(values)
    points = low + (high - low) * grid[:, None]
    exact = mechanism.double()
    with torch.no_grad():
        gains = deviation_utility(exact, values, points[:, None].expand(-1, 40, -1, -1)) - utility(
            values, exact(values)
        )
    best = gains.amax(0).clamp_min(0)
    assert report.regret >= 0.9999 * float(best.mean())
    assert bool((report.instances.gain >= best - 1e-6).all())


def test_the_report_adds_up(two_by_two: UniformBox) -> None:
    mechanism = network(two_by_two, scale=2.0)
    report = audit(mechanism, two_by_two, "fast", 300, 0)
    assert report.regret_sum == pytest.approx(2 * report.regret)
    assert report.regret_sum == pytest.approx(sum(report.regret_by_bidder))
    assert report.regret_ratio == pytest.approx(report.regret_sum / report.revenue)
    assert report.regret <= report.regret_p95 <= report.regret_p99 <= report.regret_max
    assert report.regret_max == max(bidder["regret_max"] for bidder in report.bidders)
    assert report.regret_by_bidder == [bidder["regret"] for bidder in report.bidders]
    assert report.regret_share_above == pytest.approx(float((report.instances.gain > 1e-3).double().mean()))
    assert sum(report.found_by.values()) == pytest.approx(1)
    assert report.stages[-1].regret == pytest.approx(report.regret, rel=1e-3)
    assert "lower bound" in report.statement
    assert "float64" in report.search
    values = two_by_two.sample(300, generator(0, Stream.AUDIT)).double()
    payments = mechanism.double()(values).payment.detach().sum(-1)
    assert report.revenue == pytest.approx(float(payments.mean()))
    assert report.revenue_se == pytest.approx(float(payments.std()) / 300**0.5)


def test_it_follows_its_seed_and_leaves_the_mechanism_alone(two_by_two: UniformBox) -> None:
    mechanism = network(two_by_two, scale=2.0)
    before = [parameter.clone() for parameter in mechanism.parameters()]
    one, same, other = (audit(mechanism, two_by_two, "fast", 60, seed).as_dict() for seed in (1, 1, 2))
    for report in (one, same, other):
        report.pop("seconds")
    assert one == same
    assert one["revenue"] != other["revenue"]
    assert all(torch.equal(a, b) for a, b in zip(before, mechanism.parameters(), strict=True))
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in mechanism.parameters())


def test_revenue_may_have_profiles_of_its_own(two_by_two: UniformBox) -> None:
    mechanism = network(two_by_two, scale=2.0)
    few, many = (audit(mechanism, two_by_two, "fast", 40, 0, revenue_samples=k) for k in (None, 20_001))
    assert (few.revenue_samples, many.revenue_samples) == (40, 20_001)
    assert many.revenue_se < few.revenue_se / 15
    assert many.revenue == pytest.approx(few.revenue, abs=4 * few.revenue_se)
    assert many.regret_ratio == pytest.approx(many.regret_sum / many.revenue)
    mine = {"revenue", "revenue_se", "revenue_samples", "regret_ratio", "seconds"}
    assert all(few.as_dict()[key] == entry for key, entry in many.as_dict().items() if key not in mine)

    draws = [generator(0, Stream.AUDIT, step) for step in range(2, 5)]
    parts = [two_by_two.sample(size, draw) for size, draw in zip((8192, 8192, 3617), draws, strict=True)]
    payments = mechanism.double()(torch.cat(parts).double()).payment.detach().sum(-1)
    assert many.revenue == pytest.approx(float(payments.mean()), abs=1e-7)
    assert many.revenue_se == pytest.approx(float(payments.std()) / 20_001**0.5, rel=1e-5)


def test_revenue_s_profiles_do_not_invalidate_a_journal(two_by_two: UniformBox, tmp_path: Path) -> None:
    mechanism, path = network(two_by_two, scale=2.0), tmp_path / "audit.partial"
    audit(mechanism, two_by_two, "fast", 20, 0, journal=path)
    searched = set(torch.load(path, weights_only=True)["parts"])
    continued = audit(mechanism, two_by_two, "fast", 20, 0, revenue_samples=1000, journal=path)
    assert set(torch.load(path, weights_only=True)["parts"]) == searched | {"revenue of 1000"}
    alone = audit(mechanism, two_by_two, "fast", 20, 0, revenue_samples=1000)
    assert continued.as_dict() | {"seconds": 0} == alone.as_dict() | {"seconds": 0}


def test_revenue_that_is_not_a_number_is_refused(two_by_two: UniformBox) -> None:
    def sometimes(bids: Tensor) -> tuple[Tensor, Tensor]:
        allocation, payment = posted_prices(bids)
        return allocation, torch.where(bids[..., 0] < 0.001, torch.nan, payment)

    with pytest.raises(ValueError, match=r"revenue is NaN or infinite in \d+ profiles"):
        audit(sometimes, two_by_two, "fast", 20, 0, revenue_samples=5000)


def test_held_out_and_audit_profiles_differ(two_by_two: UniformBox) -> None:
    mechanism = SecondPrice(2, 2, "additive", reserve=0.0)
    reports = [audit(mechanism, two_by_two, "fast", 50, 0, stream) for stream in (Stream.AUDIT, Stream.HELD_OUT)]
    assert reports[0].revenue != reports[1].revenue


def test_misreports_stay_in_a_support_with_gaps() -> None:
    setting = Independent(2, 2, PiecewiseUniform([[0.0, 0.3], [0.7, 1.0]], [0.3, 0.3]), "additive")
    report = audit(network(setting, scale=2.0), setting, "fast", 100, 0)
    assert "misreport_outside_support" not in report.flags
    assert report.regret > 0


class Broken(Mechanism):
    """Sells everything to everyone, for more than it is worth."""

    def forward(self, bids: Tensor) -> Outcome:
        return Outcome(torch.ones_like(bids), bids.sum(-1) + 1)


def test_flags_are_raised(two_by_two: UniformBox) -> None:
    assert audit(Broken(2, 2, "additive"), two_by_two, "fast", 20, 0).flags == [
        "infeasible",
        "individual_rationality_violated",
    ]
    single = UniformBox(1, 1, 0.0, 1.0, "additive")
    report = audit(FirstPrice(1, 1, "additive", reserve=0.0), single, "fast", 200, 0)
    assert report.flags == ["revenue_above_optimum"]
    assert report.regret > 0.3
    assert report.best_response_revenue == pytest.approx(0, abs=1e-2)  # the menu sells from a price of almost 0


def test_a_random_mechanism_is_flagged(two_by_two: UniformBox) -> None:
    def lottery(bids: Tensor) -> tuple[Tensor, Tensor]:
        return 0 * bids, torch.rand(bids.shape[:-1]).to(bids) * 0

    def dice(bids: Tensor) -> tuple[Tensor, Tensor]:
        return 0 * bids, torch.rand(bids.shape[:-1]).to(bids)

    assert "not_deterministic" not in audit(lottery, two_by_two, "fast", 20, 0).flags
    assert "not_deterministic" in audit(dice, two_by_two, "fast", 20, 0).flags


def spike(bids: Tensor) -> tuple[Tensor, Tensor]:
    """Item-wise second price that pays whoever reports (.9, .1), give or take .01, half a unit."""
    top = bids.amax(-2, keepdim=True)
    allocation = (bids == top).to(bids)
    payment = (allocation * bids.flip(-2)).sum(-1)
    near = torch.exp(-0.5 * ((bids - torch.tensor([0.9, 0.1]).to(bids)) / 0.01).square().sum(-1))
    return allocation, payment - 0.5 * near


def test_a_planted_spike_is_never_called_clean(two_by_two: UniformBox) -> None:
    report = audit(spike, two_by_two, "strong", 100, 0)
    assert report.regret_max > 0.4
    values = report.instances.values
    centre = torch.tensor([0.9, 0.1]).to(values).expand_as(values)

    def rule(bids: Tensor) -> Outcome:
        return Outcome(*(part.unflatten(0, bids.shape[:-2]) for part in spike(bids.flatten(0, -3))))

    known = deviation_utility(rule, values, centre) - utility(values, rule(values))
    assert bool((report.instances.gain >= known - 1e-3).all())  # the pool carries it to every instance


def test_a_spike_too_narrow_to_be_hit_is_at_least_not_certified(two_by_two: UniformBox) -> None:
    def needle(bids: Tensor) -> tuple[Tensor, Tensor]:
        hit = ((bids - torch.tensor([0.9, 0.1]).to(bids)).abs() < 1e-6).all(-1)
        allocation, payment = posted_prices(bids)
        return allocation, payment - hit.to(bids)

    report = audit(needle, two_by_two, "certified", 20, 0)
    assert report.regret == 0
    assert "not_certified" in report.flags
    assert report.instances.upper is None


def test_worst_lies_can_be_saved_and_told_again(two_by_two: UniformBox, tmp_path: Path) -> None:
    mechanism = network(two_by_two, scale=2.0)
    report = audit(mechanism, two_by_two, "fast", 50, 0)
    report.save_misreports(tmp_path / "misreports.npz")
    saved = numpy.load(tmp_path / "misreports.npz")
    values, misreport = torch.tensor(saved["values"]), torch.tensor(saved["misreport"])
    exact = mechanism.double()
    told = deviation_utility(exact, values, misreport) - utility(values, exact(values))
    assert torch.allclose(told.detach(), torch.tensor(saved["gain"]), atol=1e-12)
    assert set(saved["member"].flatten()) <= set(report.found_by)


def test_one_bidders_best_responses_earn_what_a_fixed_menu_earns() -> None:
    """A single take-it-or-leave-it price of 1/2 that a bidder avoids by reporting just under 1/2 for nothing."""
    setting = UniformBox(1, 1, 0.0, 1.0, "additive")

    def shaded(bids: Tensor) -> tuple[Tensor, Tensor]:
        """Sells above 1/2 at 1/2 and above 3/4 at 3/4: nobody truthful above 3/4 has to pay that much."""
        sold = (bids >= 0.5).to(bids)
        return sold, torch.where(bids >= 0.75, 0.75, 0.5).squeeze(-1).to(bids) * sold.squeeze(-1)

    report = audit(shaded, setting, "strong", 2000, 0)
    share = float((report.instances.values >= 0.5).double().mean())
    assert report.best_response_revenue == pytest.approx(0.5 * share, abs=1e-6)
    assert report.revenue > report.best_response_revenue + 0.03
    assert report.regret == pytest.approx(0.25 * float((report.instances.values >= 0.75).double().mean()), abs=1e-9)


def test_an_interrupted_audit_goes_on(two_by_two: UniformBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mechanism, path = network(two_by_two, scale=2.0), tmp_path / "audit.partial"
    seen = interrupt_audit(mechanism, two_by_two, path, monkeypatch)
    continued = audit(mechanism, two_by_two, "strong", 30, 0, journal=path).as_dict()
    other = network(two_by_two, scale=2.5)
    assert audit(other, two_by_two, "strong", 30, 0, journal=str(path)).regret != continued["regret"]
    path.write_text("something else")
    assert audit(other, two_by_two, "fast", 30, 0, journal=path).regret > 0
    whole = audit(mechanism, two_by_two, "strong", 30, 0).as_dict()
    for report in (continued, whole):
        report.pop("seconds")
    assert continued == whole
    assert 0 <= seen[0] < seen[-1] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("strongest", 10, 0), "audit.tier must be one of fast, strong, paper, certified, got 'strongest'"),
        (("fast", 0, 0), "audit.samples must be a whole number of at least 2, got 0"),
        (("fast", 1, 0), "audit.samples must be a whole number of at least 2, got 1"),
    ],
)
def test_a_wrong_audit_is_refused(two_by_two: UniformBox, arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit(SecondPrice(2, 2, "additive", reserve=0.0), two_by_two, *arguments)


def test_a_mechanism_of_another_shape_is_refused(two_by_two: UniformBox) -> None:
    with pytest.raises(ValueError, match="for 3 bidders x 2 items and additive demand, the setting has 2 x 2"):
        audit(SecondPrice(3, 2, "additive", reserve=0.0), two_by_two, "fast", 10, 0)


def test_the_tiers_are_frozen() -> None:
    """A tier's name means one thing in every table; a stronger search gets another name."""
    digest = hashlib.sha256(repr(auditing.TIERS).encode()).hexdigest()[:16]
    assert digest == "f37a2c0521d7dc7c", "a tier has changed: give it another name, or say so in the CHANGELOG"
    with pytest.raises(AttributeError):
        auditing.TIERS["fast"].few_items.seeds = 3


def test_every_flag_is_documented() -> None:
    page = (ROOT / "docs" / "audit.md").read_text()
    for flag in auditing.FLAGS:
        assert f"`{flag}`" in page


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda bids: bids, "must return an Outcome or .allocation, payment., got Tensor"),
        (lambda bids: (bids, bids), "payment must have shape .2, 2., got .2, 2, 2."),
        (lambda bids: (bids[:, 0], bids[..., 0]), "allocation must have shape .2, 2, 2., got .2, 2."),
        (lambda bids: (bids * torch.nan, bids[..., 0] * torch.nan), "NaN or infinite in 10 of 10 profiles"),
        (lambda bids: (None, bids[..., 0]), "must be tensors or arrays of numbers"),
        (lambda bids: (bids, bids, bids), "got tuple of 3"),
    ],
)
def test_a_mechanism_that_answers_wrongly_is_refused(two_by_two: UniformBox, rule: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit(rule, two_by_two, "fast", 10, 0)


def test_nan_weights_are_refused(two_by_two: UniformBox) -> None:
    mechanism = network(two_by_two)
    with torch.no_grad():
        mechanism.payment_network[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN weights"):
        audit(mechanism, two_by_two, "fast", 10, 0)
