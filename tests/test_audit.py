import pytest
import torch
from torch import Tensor

from tests.conftest import network
from truthful import audit, auditing
from truthful.auction import Outcome, deviation_utility, utility
from truthful.auditing import attack
from truthful.mechanisms import FirstPrice, Mechanism, SecondPrice
from truthful.settings import UniformBox, UniformUnion
from truthful.streams import Stream, generator


def test_second_price_has_no_regret(two_by_two: UniformBox) -> None:
    report = audit(SecondPrice(2, 2, "additive", reserve=0.5), two_by_two, "fast", 500, 0)
    assert report.regret == report.regret_max == report.regret_sum == 0
    assert report.flags == []
    assert report.revenue == pytest.approx(5 / 6, abs=5 * report.revenue_se)


def test_first_price_has_its_closed_form() -> None:
    """Truthful first price, one item: the winner gains v(1) - v(2) by bidding just above v(2)."""
    setting = UniformBox(3, 1, 0.0, 1.0, "additive")
    report = audit(FirstPrice(3, 1, "additive", reserve=0.0), setting, "fast", 400, 0)
    values = setting.sample(400, generator(0, Stream.AUDIT))[..., 0].sort(-1).values
    exact = float((values[:, -1] - values[:, -2]).mean())
    assert report.regret_sum <= exact + 1e-6
    assert report.regret_sum >= 0.9 * exact  # a jump gives no gradient to follow: points and starts find it
    assert report.regret == pytest.approx(report.regret_sum / 3)
    assert report.revenue == pytest.approx(float(values[:, -1].mean()), abs=1e-6)


@pytest.mark.parametrize("demand", ["additive", "unit"])
def test_the_attack_agrees_with_a_grid(demand: str) -> None:
    setting = UniformBox(2, 2, [0.0, 4.0], [1.0, 16.0], demand)
    mechanism = network(setting, scale=1.5)
    report = audit(mechanism, setting, "fast", 40, 3)
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
    assert report.regret >= 0.995 * float(best.mean())
    assert report.regret_max >= 0.995 * float(best.max())


def test_the_report_adds_up(two_by_two: UniformBox) -> None:
    mechanism = network(two_by_two, scale=2.0)
    report = audit(mechanism, two_by_two, "fast", 300, 0)
    assert report.regret_sum == pytest.approx(2 * report.regret)
    assert report.regret_sum == pytest.approx(sum(report.regret_by_bidder))
    assert report.regret_ratio == pytest.approx(report.regret_sum / report.revenue)
    assert report.regret <= report.regret_p95 <= report.regret_max
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


def test_held_out_and_audit_profiles_differ(two_by_two: UniformBox) -> None:
    mechanism = SecondPrice(2, 2, "additive", reserve=0.0)
    reports = [audit(mechanism, two_by_two, "fast", 50, 0, stream) for stream in (Stream.AUDIT, Stream.HELD_OUT)]
    assert reports[0].revenue != reports[1].revenue


def test_the_size_of_a_chunk_does_not_matter(two_by_two: UniformBox, monkeypatch: pytest.MonkeyPatch) -> None:
    mechanism = network(two_by_two, scale=2.0)
    whole = audit(mechanism, two_by_two, "fast", 100, 0)
    monkeypatch.setattr(attack, "ROWS", 1500)
    parts = audit(mechanism, two_by_two, "fast", 100, 0)
    assert parts.regret == pytest.approx(whole.regret, rel=1e-5)
    assert parts.regret_max == pytest.approx(whole.regret_max, rel=1e-5)


def test_misreports_stay_in_a_support_with_gaps() -> None:
    setting = UniformUnion(2, 2, [[0.0, 0.3], [0.7, 1.0]], "additive")
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("strong", 10, 0), "audit.tier must be one of fast, got 'strong'"),
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
    assert {name: tier.forward_passes for name, tier in auditing.TIERS.items()} == {"fast": 495}
    with pytest.raises(AttributeError):
        auditing.TIERS["fast"].steps = 1
