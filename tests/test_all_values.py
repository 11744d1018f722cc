"""Bounds for all values of a bidder contain the regret at each of them, whether closed or not."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import blank_network, network
from tests.test_certificate import evaluate
from truthful.auditing.all_values import AllValues, certify_all_values
from truthful.auditing.certificate import certify
from truthful.auditing.outcome_tree import OutcomeTree
from truthful.auditing.pair_search import PairSearch, multilinear
from truthful.auditing.reported import ReportedUtility
from truthful.laws import PiecewiseUniform
from truthful.mechanisms import RegretNet, SecondPrice
from truthful.settings import Independent, Setting, UniformBox

F64 = torch.float64
SETTINGS = [
    UniformBox(1, 1, 0.0, 1.0, "additive"),
    UniformBox(2, 1, 0.0, 1.0, "additive"),
    UniformBox(1, 2, 4.0, [16.0, 7.0], "additive"),
    UniformBox(2, 2, 0.0, 1.0, "additive"),
    UniformBox(2, 2, 0.0, 1.0, "unit"),
]
each_setting = pytest.mark.parametrize(
    "setting", SETTINGS, ids=lambda s: f"{s.n_bidders}x{s.n_items} {s.demand} to {s.high.max():g}"
)


def opponents(setting: Setting, seed: int = 3) -> Tensor:
    return setting.sample(1, torch.Generator().manual_seed(seed))[0].double()


def gains(mechanism: RegretNet, bids: Tensor, bidder: int, values: Tensor, reports: Tensor) -> Tensor:
    """What each report gains at each value; by the mechanism alone."""
    mechanism = copy.deepcopy(mechanism).double()

    def play(own: Tensor) -> tuple[Tensor, Tensor]:
        profiles = bids.double().repeat(len(own), 1, 1)
        profiles[:, bidder] = own
        with torch.no_grad():
            outcome = mechanism(profiles)
        return outcome.allocation[:, bidder], outcome.payment[:, bidder]

    (won, paid), (won_true, paid_true) = play(reports), play(values)
    return values @ won.T - paid - ((values * won_true).sum(-1) - paid_true).unsqueeze(-1)


def grid(setting: Setting, bidder: int, points: int) -> Tensor:
    line = torch.linspace(0, 1, points, dtype=F64)
    unit = torch.cartesian_prod(*[line] * setting.n_items).view(-1, setting.n_items)
    return setting.low[bidder] + (setting.high - setting.low)[bidder] * unit


def grid_regret(mechanism: RegretNet, setting: Setting, bids: Tensor, bidder: int) -> float:
    """Largest gain over values x reports."""
    everywhere = grid(setting, bidder, 1001 if setting.n_items == 1 else 41)
    return float(gains(mechanism, bids, bidder, everywhere, everywhere).max())


def check_witness(found: AllValues, mechanism: RegretNet, setting: Setting, bids: Tensor, bidder: int) -> None:
    """The lower bound is what the misreport gains at the value named."""
    gain = gains(mechanism, bids, bidder, found.worst_value[None], found.misreport[None])
    assert float(gain) == pytest.approx(found.lower, abs=1e-12 * float(setting.high.max()))
    for point in (found.worst_value, found.misreport):
        assert ((point >= setting.low[bidder]) & (point <= setting.high[bidder])).all()


@each_setting
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_closed_bounds_bracket_a_fine_grid(setting: Setting, scale: float) -> None:
    mechanism = network(setting, scale=scale)
    bids, bidder = opponents(setting), setting.n_bidders - 1
    eps = 1e-3 * float(setting.high.max())
    found = certify_all_values(mechanism, setting, bids, bidder, eps, 50_000, 4_000_000)
    assert found.closed
    assert 0 <= found.lower <= found.upper <= found.lower + eps
    regret = grid_regret(mechanism, setting, bids, bidder)
    assert found.lower - 1e-3 * eps >= regret - eps
    assert regret <= found.upper
    check_witness(found, mechanism, setting, bids, bidder)


@each_setting
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid()])
def test_other_activations(setting: Setting, activation: nn.Module) -> None:
    mechanism = RegretNet(**setting.shape, depth=2, width=8, activation=activation, unit_demand_scores=1)
    mechanism.initialise(torch.Generator().manual_seed(1))
    bids, eps = opponents(setting), 1e-2 * float(setting.high.max())
    found = certify_all_values(mechanism, setting, bids, 0, eps, 50_000, 4_000_000)
    assert found.closed
    assert grid_regret(mechanism, setting, bids, 0) <= found.upper


@each_setting
@pytest.mark.parametrize(("max_boxes", "max_cells"), [(1, 10**6), (30, 10**6), (10**6, 200)])
def test_an_exhausted_budget_leaves_a_valid_bound(setting: Setting, max_boxes: int, max_cells: int) -> None:
    mechanism = network(setting, scale=3.0)
    bids = opponents(setting)
    found = certify_all_values(mechanism, setting, bids, 0, 1e-10, max_boxes, max_cells)
    assert not found.closed
    assert found.boxes <= max_boxes
    assert found.cells <= max_cells
    assert found.lower <= found.upper
    assert grid_regret(mechanism, setting, bids, 0) <= found.upper
    check_witness(found, mechanism, setting, bids, 0)


@each_setting
def test_every_pair_is_bounded(setting: Setting) -> None:
    mechanism = network(setting, scale=3.0)
    bids, bidder, m = opponents(setting), 0, setting.n_items
    tree = OutcomeTree(ReportedUtility(mechanism, bidder), setting, bids)
    for level in range(5):
        tree.grow(tree.childless(torch.arange(len(tree))) if level < 3 else torch.tensor([len(tree) - 2]))
    generator = torch.Generator().manual_seed(0)
    cell, box = torch.randint(len(tree), (2, 150), generator=generator)
    cell[:50] = box[:50]
    most = setting.high[bidder].sum().expand(150)
    with torch.no_grad():
        bound = PairSearch(tree, 1e-3, 1, 1)._bound(cell, box, most).bound
    delta = 2 * torch.rand(2, 40, m, generator=generator, dtype=F64) - 1
    delta[:, :20] = delta[:, :20].sign()
    for k in range(150):
        values, reports = (tree.centre[i] + tree.half[i] * d for i, d in zip((cell[k], box[k]), delta, strict=True))
        assert gains(mechanism, bids, bidder, values, reports).max() <= bound[k] + 1e-12


@pytest.mark.parametrize("m", [1, 2])
def test_interpolation_is_exact_at_corners(m: int) -> None:
    setting = UniformBox(1, m, 0.0, 1.0, "additive")
    tree = OutcomeTree(ReportedUtility(network(setting), 0), setting, opponents(setting))
    values = torch.randn(2**m, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    delta = tree.corners.unsqueeze(-1).expand(-1, -1, 5)
    torch.testing.assert_close(evaluate(multilinear(values), delta), values)


@each_setting
def test_single_values_agree(setting: Setting) -> None:
    """No certificate of one value finds more regret than the bound for all; that of the worst value finds as much."""
    mechanism = network(setting, scale=2.0)
    bids, bidder, eps = opponents(setting), setting.n_bidders - 1, 1e-3 * float(setting.high.max())
    found = certify_all_values(mechanism, setting, bids, bidder, eps, 50_000, 4_000_000)
    values = torch.cat([grid(setting, bidder, 3), found.worst_value[None]])
    profiles = bids.expand(len(values), -1, -1).clone()
    profiles[:, bidder] = values
    who = torch.full((len(values),), bidder)
    single = certify(mechanism, setting, profiles, who, values, eps, 50_000)
    assert (single.lower <= found.upper).all()
    assert single.upper[-1] >= found.lower


def test_a_kink_of_the_best_response_does_no_harm() -> None:
    """The allocation rises in two steps: the best report jumps from one to the other, and the bounds still close."""
    setting = UniformBox(1, 1, 0.0, 1.0, "additive")
    mechanism = blank_network()
    with torch.no_grad():
        mechanism.allocation_network[0].weight[:] = 20.0
        mechanism.allocation_network[0].bias[:] = torch.tensor([-6.0, -15.0])
        mechanism.allocation_network[2].weight[0] = 3.0
        mechanism.payment_network[2].bias[:] = 1.0
    found = certify_all_values(mechanism, setting, torch.zeros(1, 1), 0, 1e-5, 5_000, 100_000)
    assert found.closed
    assert found.lower > 0.1
    assert grid_regret(mechanism, setting, torch.zeros(1, 1), 0) <= found.upper


def test_a_support_with_gaps() -> None:
    """The upper bound holds for the box round the support; value and misreport lie in the support itself."""
    setting = Independent(2, 2, PiecewiseUniform([[0.0, 0.2], [0.7, 1.0]], [0.2, 0.3]), "additive")
    mechanism, bids = network(setting, scale=2.0), opponents(setting)
    found = certify_all_values(mechanism, setting, bids, 0, 1e-3, 2_000, 50_000)
    assert grid_regret(mechanism, setting, bids, 0) <= found.upper
    for point in (found.worst_value, found.misreport):
        assert torch.equal(setting.project(point.expand(2, 2)), point.expand(2, 2))


def test_the_own_row_is_ignored_and_the_mechanism_stays() -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    mechanism, bids = network(setting), opponents(setting).float()
    told: list[float] = []
    first = certify_all_values(mechanism, setting, bids, 1, 1e-2, 5_000, 500_000, told.append)
    bids[1] = torch.nan
    second = certify_all_values(mechanism, setting, bids, 1, 1e-2, 5_000, 500_000)
    assert (first.lower, first.upper, first.cells) == (second.lower, second.upper, second.cells)
    assert told == sorted(told)
    assert told[-1] == 1
    assert next(mechanism.parameters()).dtype == torch.float32
    assert next(mechanism.parameters()).requires_grad


def test_wrong_input() -> None:
    setting = UniformBox(2, 2, 0.0, 1.0, "additive")
    mechanism, bids = network(setting), opponents(setting)
    rest = (1e-3, 100, 100)
    three = UniformBox(2, 3, 0.0, 1.0, "additive")
    with pytest.raises(ValueError, match="at most 2 items, got 3"):
        certify_all_values(network(three), three, opponents(three), 0, *rest)
    with pytest.raises(ValueError, match="only a RegretNet or a SparsemaxRegretNet can be certified, got SecondPrice"):
        certify_all_values(SecondPrice(2, 2, "additive", 0.0), setting, bids, 0, *rest)
    with pytest.raises(ValueError, match="and additive demand, the setting has 2 x 2 and unit demand"):
        certify_all_values(mechanism, UniformBox(2, 2, 0.0, 1.0, "unit"), bids, 0, *rest)
    with pytest.raises(ValueError, match=r"opponents must be of shape \(2, 2\), got \(1, 2\)"):
        certify_all_values(mechanism, setting, bids[:1], 0, *rest)
    with pytest.raises(ValueError, match="bidder must be a whole number from 0 to 1, got 2"):
        certify_all_values(mechanism, setting, bids, 2, *rest)
    for broken in (bids + 1, bids * torch.nan):
        with pytest.raises(ValueError, match="must lie in the setting's support"):
            certify_all_values(mechanism, setting, broken, 0, *rest)
    for eps in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="eps must be positive, got"):
            certify_all_values(mechanism, setting, bids, 0, eps, 100, 100)
    with pytest.raises(ValueError, match="max_boxes must be a whole number of at least 1, got 0"):
        certify_all_values(mechanism, setting, bids, 0, 1e-3, 0, 100)
    with pytest.raises(ValueError, match="max_cells must be a whole number of at least 1, got 0"):
        certify_all_values(mechanism, setting, bids, 0, 1e-3, 100, 0)
