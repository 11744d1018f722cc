"""Bounds contain what they bound; certificates are valid whether closed or open."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import blank_network, network
from truthful.auditing.certificate import Certificate, certify
from truthful.auditing.piecewise import PiecewiseUtility
from truthful.auditing.relaxation import RELAXATIONS
from truthful.auditing.reported import ReportedUtility, ReportModel, largest
from truthful.auditing.zonotope import Form, box_form, pairs
from truthful.laws import PiecewiseUniform
from truthful.mechanisms import Mechanism, RegretNet, SecondPrice, SparsemaxRegretNet
from truthful.settings import Independent, Setting, UniformBox

F64 = torch.float64


def random_network(
    n: int, m: int, demand: str, activation: nn.Module, scale: float, scores: int = 2, depth: int = 2
) -> RegretNet:
    mechanism = RegretNet(n, m, demand, depth, 16, activation, scores)
    perturb(mechanism, scale)
    return mechanism


def perturb(mechanism: Mechanism, scale: float) -> None:
    """Initialise it, `scale` times as large as usual, with biases that are not zero."""
    generator = torch.Generator().manual_seed(mechanism.n_bidders + 10 * mechanism.n_items)
    mechanism.initialise(generator)
    with torch.no_grad():
        for parameter in mechanism.parameters():
            if parameter.ndim == 1:
                parameter.normal_(std=0.3, generator=generator)
            parameter.mul_(scale)


def random_boxes(count: int, m: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    half = 0.5 * 10 ** (-8.7 * torch.rand(count, m, generator=generator, dtype=F64))
    half[: count // 8] = 0.5
    return half + (1 - 2 * half) * torch.rand(count, m, generator=generator, dtype=F64), half


def evaluate(form: Form, delta: Tensor) -> Tensor:
    """The form without its rest; delta has the shape (samples, m, boxes)."""
    first, second = zip(*pairs(form.items), strict=True)
    return form.centre + (form.linear * delta).sum(1) + (form.bends * delta[:, first] * delta[:, second]).sum(1)


CASES = [
    *itertools.product([1, 2, 3], [1, 2, 3], ["additive"], [2]),
    *itertools.product([1, 2, 3], [1, 2, 3], ["unit"], [1, 2]),
]


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU(), nn.Sigmoid()])
@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize(("n", "m", "demand", "scores"), CASES)
def test_forms_contain_samples(n: int, m: int, demand: str, scores: int, activation: nn.Module, scale: float) -> None:
    check_enclosures(ReportedUtility(random_network(n, m, demand, activation, scale, scores), n - 1), n)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("demand", ["additive", "unit"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 3), (2, 2), (3, 2)])
def test_forms_contain_samples_of_linear_pieces(n: int, m: int, demand: str, scale: float) -> None:
    mechanism = SparsemaxRegretNet(UniformBox(n, m, 0.0, 1.0, demand), 2, 16, 3)
    perturb(mechanism, scale)
    check_enclosures(PiecewiseUtility(mechanism, n - 1), n)


def check_enclosures(model: ReportModel, n: int) -> None:
    """For the last bidder, whose box is the unit cube."""
    m, generator = model.items, torch.Generator().manual_seed(7)
    count = 24
    profiles = torch.rand(count, n, m, generator=generator, dtype=F64)
    centre, half = random_boxes(count, m, generator)
    delta = 2 * torch.rand(400, m, count, generator=generator, dtype=F64) - 1
    delta[:100] = delta[:100].sign()
    reports = (centre + half * delta.transpose(1, 2)).flatten(0, 1)
    everyone, values, base = profiles.repeat(400, 1, 1), profiles[:, -1], model.base(profiles)
    utility = model.utility(everyone, reports, values.repeat(400, 1)).view(400, count)
    form, _, plain = model.enclose(base, values, centre, half)
    assert (utility <= plain + 1e-12).all()
    assert (utility <= evaluate(form, delta) + form.rest + 1e-12).all()
    assert (evaluate(form, delta) + form.rest <= largest(form) + 1e-12).all()
    everyone[:, -1] = reports
    truthful = model.utility(everyone, reports, reports)
    fixed = model.utility(everyone, reports, centre.repeat(400, 1))
    outcome = model.enclose_outcome(base, centre, half)
    for k, exact in enumerate([truthful, fixed, *model.mechanism(everyone).allocation[:, -1].T]):
        number, form = exact.view(400, count), Form(outcome.rows[k], outcome.rest[k], m)
        approximate = evaluate(form, delta)
        assert (number <= approximate + form.rest + 1e-12).all()
        assert (approximate + form.rest <= largest(form) + 1e-12).all()
        assert (number >= approximate - form.rest - 1e-12).all()
        assert (number >= -largest(-form) - 1e-12).all()


@pytest.mark.parametrize("relax", RELAXATIONS.items(), ids=lambda pair: pair[0].__name__)
def test_activations_are_enclosed(relax: tuple) -> None:
    kind, enclose = relax
    generator = torch.Generator().manual_seed(0)
    centre = 12 * torch.randn(4000, generator=generator, dtype=F64) * torch.rand(4000, generator=generator, dtype=F64)
    first, higher = (10 ** (12 * torch.rand(2, 4000, generator=generator, dtype=F64) - 10)).unbind()
    near = enclose(centre, first, higher)
    for t, e in itertools.product(torch.linspace(-1, 1, 41, dtype=F64), torch.linspace(-1, 1, 9, dtype=F64)):
        exact = kind()(centre + t * first + e * higher)
        line = near.middle + near.slope * (t * first + e * higher) + near.curvature * (t * first).square()
        assert ((exact - line).abs() <= near.error + 1e-13 * (1 + centre.abs() + first + higher)).all()


def test_the_rest_is_of_third_order() -> None:
    model = ReportedUtility(random_network(2, 2, "additive", nn.Tanh(), 1.0), 0)
    profiles = torch.rand(8, 2, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    centre = torch.full((8, 2), 0.5, dtype=F64)
    rest = [
        model.enclose(model.base(profiles), profiles[:, 0], centre, torch.full_like(centre, half))[0].rest
        for half in (0.02, 0.01)
    ]
    assert (rest[0] / rest[1] > 6).all()


@pytest.mark.parametrize("m", [1, 2, 3])
def test_largest_value_of_a_form(m: int) -> None:
    generator = torch.Generator().manual_seed(m)
    rows = torch.randn(1 + m + len(pairs(m)), 200, generator=generator, dtype=F64)
    form = Form(rows, torch.zeros(200, dtype=F64), m)
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, 21, dtype=F64)] * m).view(-1, m, 1)
    best = evaluate(form, grid).amax(0)
    assert (largest(form) >= best - 1e-12).all()
    if m <= 2:
        assert (largest(form) <= best + 0.05).all()


def test_a_box_encloses_itself() -> None:
    centre, half = torch.tensor([[0.5, 0.25]], dtype=F64), torch.tensor([[0.5, 0.125]], dtype=F64)
    low, high = box_form(centre, half).range()
    assert torch.equal(low.T, centre - half)
    assert torch.equal(high.T, centre + half)


def instances(setting: Setting, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Profiles and bidders in mixed order, and the truth as the incumbent."""
    values = setting.sample(count, torch.Generator().manual_seed(3)).double()
    bidder = torch.arange(count) % setting.n_bidders
    return values, bidder, values[torch.arange(count), bidder]


def grid_regret(mechanism: RegretNet, setting: Setting, values: Tensor, bidder: Tensor, points: int) -> Tensor:
    """Largest gain over a grid of reports."""
    regret = []
    unit = torch.cartesian_prod(*[torch.linspace(0, 1, points, dtype=F64)] * setting.n_items).view(-1, setting.n_items)
    for profile, i in zip(values, bidder.tolist(), strict=True):
        model = ReportedUtility(mechanism, i)
        reports = setting.low[i] + (setting.high - setting.low)[i] * unit
        truth = profile[i].expand_as(reports)
        utility = model.utility(profile.expand(len(unit), -1, -1), reports, truth)
        regret.append(utility.max() - model.utility(profile[None], profile[None, i], profile[None, i])[0])
    return torch.stack(regret).clamp_min(0)


SETTINGS = [
    UniformBox(1, 1, 0.0, 1.0, "additive"),
    UniformBox(3, 1, 0.0, 1.0, "additive"),
    UniformBox(1, 2, 4.0, [16.0, 7.0], "additive"),
    UniformBox(2, 2, 0.0, 1.0, "additive"),
    UniformBox(2, 2, 0.0, 1.0, "unit"),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"{s.n_bidders}x{s.n_items} {s.demand} to {s.high.max()}")
@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU(), nn.Sigmoid()])
def test_closed_certificates_bracket_a_fine_grid(setting: Setting, activation: nn.Module) -> None:
    mechanism = random_network(setting.n_bidders, setting.n_items, setting.demand, activation, 1.0)
    values, bidder, truth = instances(setting, 4)
    scale = float(setting.high.max())
    found = certify(mechanism, setting, values, bidder, truth, 1e-3 * scale, 20_000)
    assert found.closed.all()
    assert (found.upper - found.lower <= 1e-3 * scale).all()
    assert (found.lower >= 0).all()
    regret = grid_regret(mechanism, setting, values, bidder, 201)
    assert (regret <= found.upper).all()
    assert (found.lower >= regret - 1e-3 * scale).all()
    model_gain = torch.stack(
        [
            ReportedUtility(mechanism, i).utility(v[None], r[None], v[None, i])[0]
            - ReportedUtility(mechanism, i).utility(v[None], v[None, i], v[None, i])[0]
            for v, i, r in zip(values, bidder.tolist(), found.misreport, strict=True)
        ]
    )
    torch.testing.assert_close(model_gain, found.lower, rtol=0, atol=1e-12)
    assert ((found.misreport >= setting.low[bidder]) & (found.misreport <= setting.high[bidder])).all()


@pytest.mark.parametrize("max_boxes", [1, 7, 60])
@pytest.mark.parametrize("demand", ["additive", "unit"])
def test_an_open_instance_has_a_valid_bound(demand: str, max_boxes: int) -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, demand)
    mechanism = network(setting, scale=3.0)
    values, bidder, truth = instances(setting, 4)
    found = certify(mechanism, setting, values, bidder, truth, 1e-7, max_boxes)
    assert not found.closed.any()
    assert (found.boxes <= max_boxes).all()
    assert (grid_regret(mechanism, setting, values, bidder, 65) <= found.upper).all()


def test_a_larger_budget_gives_no_worse_bound() -> None:
    setting = UniformBox(2, 3, 0.0, 1.0, "additive")
    values, bidder, truth = instances(setting, 4)
    found = [certify(network(setting), setting, values, bidder, truth, 1e-6, budget) for budget in (1, 300, 2000)]
    assert (found[0].upper >= found[1].upper).all()
    assert (found[1].upper >= found[2].upper).all()
    assert (grid_regret(network(setting), setting, values, bidder, 17) <= found[2].upper).all()


def test_a_narrow_spike_of_profit_is_not_missed() -> None:
    """The payment fraction drops where report 1 is near .8137: a planted trap that only few reports reveal."""
    setting = UniformBox(1, 1, 0.0, 1.0, "additive")
    mechanism = blank_network()
    with torch.no_grad():
        mechanism.allocation_network[2].bias[0] = 8.0
        mechanism.payment_network[0].weight[:] = 4e4
        mechanism.payment_network[0].bias[:] = torch.tensor([-4e4 * 0.8136, -4e4 * 0.8138])
        mechanism.payment_network[2].weight[:] = torch.tensor([[-10.0, 10.0]])
        mechanism.payment_network[2].bias[:] = 2.0
    values = torch.tensor([[[0.5]]], dtype=F64)
    assert float(grid_regret(mechanism, setting, values, torch.tensor([0]), 101)) < 0.45
    found = certify(mechanism, setting, values, torch.tensor([0]), values[:, 0], 1e-3, 5000)
    assert found.upper > 0.43
    assert found.closed.all() == bool((found.upper - found.lower <= 1e-3).all())


def test_a_radius_restricts_the_reports() -> None:
    setting = UniformBox(2, 3, 0.0, 2.0, "additive")
    mechanism = network(setting, scale=2.0)
    values, bidder, truth = instances(setting, 6)
    far = setting.high[bidder]
    near = certify(mechanism, setting, values, bidder, far, 1e-4, 20_000, radius=0.05)
    assert near.closed.all()
    assert ((near.misreport - truth).abs() <= 0.05 * 2 + 1e-12).all()
    unit = 2 * torch.rand(2000, 3, dtype=F64, generator=torch.Generator().manual_seed(0)) - 1
    for k in range(len(values)):
        model = ReportedUtility(mechanism, int(bidder[k]))
        profile = values[k].expand(2000, -1, -1)
        reports = (truth[k] + 0.1 * unit).clamp(0, 2)
        gain = model.utility(profile, reports, truth[k].expand_as(reports))
        gain = gain - model.utility(values[k : k + 1], truth[k : k + 1], truth[k : k + 1])
        assert gain.max() <= near.upper[k]


def test_a_support_with_gaps() -> None:
    """The upper bound holds for the box round the support; the misreport lies in the support itself."""
    setting = Independent(2, 2, PiecewiseUniform([[0.0, 0.2], [0.7, 1.0]], [0.2, 0.3]), "additive")
    values, bidder, truth = instances(setting, 4)
    found = certify(network(setting), setting, values, bidder, truth, 1e-3, 5000)
    everyone = found.misreport.unsqueeze(1).expand(-1, 2, -1)
    assert torch.equal(setting.project(everyone), everyone)
    assert (found.lower <= found.upper).all()
    assert (grid_regret(network(setting), setting, values, bidder, 101) <= found.upper).all()


def test_instances_do_not_influence_each_other() -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, "unit")
    mechanism = network(setting, scale=2.0)
    values, bidder, truth = instances(setting, 10)

    def run(order: Tensor) -> Certificate:
        return certify(mechanism, setting, values[order], bidder[order], truth[order], 1e-3, 2000)

    straight, order = run(torch.arange(10)), torch.randperm(10, generator=torch.Generator().manual_seed(0))
    mixed, alone = run(order), run(order[:1])
    for name in ("lower", "upper"):
        torch.testing.assert_close(getattr(mixed, name), getattr(straight, name)[order], rtol=0, atol=1e-12)
        torch.testing.assert_close(getattr(alone, name), getattr(straight, name)[order[:1]], rtol=0, atol=1e-12)


def test_the_mechanism_stays_as_it_is_and_progress_is_told() -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    mechanism = network(setting)
    told: list[float] = []
    values, bidder, truth = instances(setting, 4)
    found = certify(mechanism, setting, values.float(), bidder, truth.float(), 1e-2, 2000, None, told.append)
    assert found.upper.dtype == F64
    assert told == sorted(told)
    assert told[-1] == 1
    assert next(mechanism.parameters()).dtype == torch.float32
    assert next(mechanism.parameters()).requires_grad


def test_wrong_input() -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    mechanism = network(setting)
    values, bidder, truth = instances(setting, 3)
    rest = (1e-3, 100)
    with pytest.raises(ValueError, match="only a RegretNet or a SparsemaxRegretNet can be certified, got SecondPrice"):
        certify(SecondPrice(2, 2, "additive", 0.0), setting, values, bidder, truth, *rest)
    softplus = RegretNet(2, 2, "additive", 1, 4, nn.Softplus(), 2)
    with pytest.raises(ValueError, match="one of Tanh, Sigmoid, ReLU to be certified, got Softplus"):
        certify(softplus, setting, values, bidder, truth, *rest)
    broken = network(setting)
    with torch.no_grad():
        broken.payment_network[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"must be finite, got NaN or infinity in payment_network\.0\.weight"):
        certify(broken, setting, values, bidder, truth, *rest)
    for eps in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="eps must be positive, got"):
            certify(mechanism, setting, values, bidder, truth, eps, 100)
    with pytest.raises(ValueError, match="max_boxes must be a whole number of at least 1, got 0"):
        certify(mechanism, setting, values, bidder, truth, 1e-3, 0)
    with pytest.raises(ValueError, match="radius must be None or positive, got 0"):
        certify(mechanism, setting, values, bidder, truth, *rest, radius=0.0)
    with pytest.raises(ValueError, match="and additive demand, the setting has 2 x 2 and unit demand"):
        certify(mechanism, UniformBox(2, 2, 0.0, 1.0, "unit"), values, bidder, truth, *rest)
    with pytest.raises(ValueError, match=r"values must be of shape \(k, 2, 2\), got \(3, 2, 1\)"):
        certify(mechanism, setting, values[..., :1], bidder, truth[..., :1], *rest)
    with pytest.raises(ValueError, match="from 0 to 1, got"):
        certify(mechanism, setting, values, bidder + 1, truth, *rest)
    with pytest.raises(ValueError, match="misreport must be finite"):
        certify(mechanism, setting, values, bidder, truth * torch.nan, *rest)
    with pytest.raises(ValueError, match="values must lie in the setting's support"):
        certify(mechanism, setting, values + 1, bidder, truth, *rest)
