"""Affine maximisers over item counts: against all allocations, brute force, assignments, the definition of prices."""

import itertools
import math
from unittest.mock import patch

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from truthful.auction import revenue, utility
from truthful.auditing import audit
from truthful.mechanisms import AMA, VVCA, Mechanism, affine, affine_fit
from truthful.mechanisms.affine_fit import tabulate
from truthful.mechanisms.choices import AllAllocations, ItemCounts, choices_of
from truthful.settings import Setting, UniformBox

C = UniformBox(3, 10, 0.0, 1.0, "additive")
UNEQUAL = UniformBox(2, 3, 0.0, [[1.0], [2.0]], "additive")
SETTINGS = [
    UniformBox(2, 3, 0.0, 1.0, "additive"),
    UniformBox(3, 3, 0.0, 1.0, "additive"),
    UniformBox(3, 2, 0.0, 1.0, "unit"),
    UNEQUAL,
]


def boosted(setting: Setting, kind: type[AMA | VVCA], weights: list[float] | None = None) -> Mechanism:
    """With boosts of about the values' size, no two alike."""
    draw = torch.Generator().manual_seed(0)
    with patch.object(affine_fit, "STEPS", 1):
        names = kind(setting, None, None, 10, 1, 0).fitted["boosts"]
    boosts = {name: float(torch.rand(1, generator=draw)) for name in names}
    return kind(setting, boosts, weights, 1, 1, 0)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: f"{setting.n_bidders}x{setting.n_items}")
@pytest.mark.parametrize("kind", [AMA, VVCA])
def test_item_counts_sell_as_all_allocations_do(setting: Setting, kind: type[AMA | VVCA]) -> None:
    weights = [1.0, 1.5, 0.7][: setting.n_bidders]
    counted = boosted(setting, kind, weights)
    by_name = dict(zip(counted.names, counted.named_boosts.tolist(), strict=True))
    with patch.object(affine, "choices_of", lambda setting: AllAllocations(**setting.shape)):
        enumerated = kind(setting, by_name, weights, 1, 1, 0)
    assert isinstance(counted.choices, ItemCounts)
    assert isinstance(enumerated.choices, AllAllocations)
    bids = setting.sample(2_000, torch.Generator().manual_seed(1)).double()
    mine, theirs = counted(bids), enumerated(bids)
    assert torch.equal(mine.allocation, theirs.allocation)
    assert torch.allclose(mine.payment, theirs.payment, atol=1e-12)
    assert len(mine.allocation.flatten(1).unique(dim=0)) > 5


def test_prices_are_externalities_by_their_definition() -> None:
    weights, boosts = [1.0, 1.5], {"0": 1.0, "1": 0.4, "2": 0.3, "1+1": 0.2, "3": 0.1, "2+1": 0.0}
    setting = SETTINGS[0]
    mechanism = AMA(setting, boosts, weights, 1, 1, 0)
    bids = setting.sample(40, torch.Generator().manual_seed(2)).double()
    outcome = mechanism(bids)

    def boost(owners: tuple[int, ...]) -> float:
        sizes = sorted((owners.count(bidder) for bidder in (1, 2)), reverse=True)
        return boosts["+".join(str(size) for size in sizes if size) or "0"]

    def part(bid: Tensor, owners: tuple[int, ...], bidder: int) -> float:
        return weights[bidder - 1] * sum(float(bid[bidder - 1, j]) for j, owner in enumerate(owners) if owner == bidder)

    everything = list(itertools.product(range(3), repeat=3))
    for k, bid in enumerate(bids):
        welfare = {owners: boost(owners) + part(bid, owners, 1) + part(bid, owners, 2) for owners in everything}
        best = max(everything, key=welfare.__getitem__)
        assert [[float(owner == bidder) for owner in best] for bidder in (1, 2)] == outcome.allocation[k].tolist()
        for bidder in (1, 2):
            without = max(welfare[owners] - part(bid, owners, bidder) for owners in everything)
            price = (without - (welfare[best] - part(bid, best, bidder))) / weights[bidder - 1]
            assert float(outcome.payment[k, bidder - 1]) == pytest.approx(price, abs=1e-12)


def test_each_vector_of_counts_has_its_best_allocation() -> None:
    choices = choices_of(C)
    assert isinstance(choices, ItemCounts)
    assert len(choices.owners) == math.comb(13, 3)
    bids = C.sample(3, torch.Generator().manual_seed(3)).double()
    welfare, allocate = choices.solve(bids)
    for s, owners in enumerate(choices.owners):
        allocation = allocate(torch.full((3,), s))
        counts = torch.tensor([owners.count(bidder) for bidder in (1, 2, 3)])
        assert torch.equal(allocation.sum(-1), counts.expand(3, 3).double())
        assert float(allocation.sum(-2).max()) <= 1
        assert torch.allclose((bids * allocation).sum((-2, -1)), welfare[s])
        for k, bid in enumerate(bids):
            slots = bid.repeat_interleave(counts, 0).numpy()
            assert float(welfare[s, k]) == pytest.approx(slots[linear_sum_assignment(slots, maximize=True)].sum())


def test_payments_have_the_slopes_of_others_bids() -> None:
    mechanism = boosted(SETTINGS[1], AMA, [1.0, 1.5, 0.7])
    bids = SETTINGS[1].sample(50, torch.Generator().manual_seed(4)).double().requires_grad_()
    slope = torch.autograd.grad(mechanism(bids).payment[:, 0].sum(), bids)[0]
    step = torch.zeros_like(bids)
    for bidder, item in itertools.product(range(3), range(3)):
        step.zero_()[:, bidder, item] = 1e-7
        with torch.no_grad():
            difference = (mechanism(bids + step).payment - mechanism(bids - step).payment)[:, 0] / 2e-7
        assert torch.allclose(slope[:, bidder, item], difference, atol=1e-5)
    assert float(slope[:, 0].abs().max()) < 1e-12
    assert float(slope[:, 1:].abs().max()) > 0.5


@pytest.mark.parametrize("weights", [[1.0, 1.0], [2.0, 2.0], [1.0, 1.5]])
def test_what_a_cold_fit_sees_is_what_the_auction_earns(weights: list[float]) -> None:
    mechanism = boosted(UNEQUAL, AMA, weights)
    values = UNEQUAL.sample(20_000, torch.Generator().manual_seed(5)).double()
    group = torch.arange(len(mechanism.boosts))
    tables = tabulate(values, mechanism.choices, group, mechanism.weights)
    expected = float(revenue(mechanism(values)).mean())
    exact = weights[0] == weights[1]
    assert float(tables.revenue(mechanism.boosts, mechanism.weights, 1e-6)) == pytest.approx(
        expected, abs=1e-6 if exact else 2e-3
    )
    assert float(tables.revenue(mechanism.boosts, mechanism.weights, 0.3)) != pytest.approx(expected, abs=1e-2)


def test_a_large_auction_is_fitted_and_has_no_lie_that_pays() -> None:
    with patch.object(affine_fit, "STEPS", 600):
        mechanism = AMA(C, None, None, 20_000, 1, 0)
    values = C.sample(20_000, torch.Generator().manual_seed(6))
    with torch.no_grad():
        outcome, exact = mechanism(values), mechanism(values.double())
    assert len(mechanism.fitted["boosts"]) == 67
    assert 5.9 <= float(revenue(exact).mean()) <= 6.48  # item-wise Myerson: 5.3125; no auction has more than 6.48
    assert torch.allclose(outcome.payment, exact.payment.float(), atol=1e-4)
    assert float(exact.allocation.sum(-2).max()) == 1
    assert float(utility(values.double(), exact).min()) >= -1e-12
    report = audit(mechanism, C, "fast", samples=50)
    assert report.regret_max <= 1e-6
    assert set(report.flags) <= {"zero_gradients", "no_gradients"}
