import pytest
import torch

from tests.conftest import network
from truthful.auction import Outcome, deviate, deviation_utility, revenue, utility
from truthful.settings import UniformBox


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 3), (2, 2), (3, 4)])
@pytest.mark.parametrize("demand", ["additive", "unit"])
def test_deviation_utility_is_the_triple_loop(n: int, m: int, demand: str) -> None:
    setting = UniformBox(n, m, 0.0, 1.0, demand)
    mechanism = network(setting, scale=3.0).double()
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(5, n, m, generator=generator, dtype=torch.float64)
    misreport = torch.rand(5, n, m, generator=generator, dtype=torch.float64)
    mechanism.requires_grad_(False)
    found = deviation_utility(mechanism, values, misreport)
    for b in range(5):
        for i in range(n):
            bids = values[b].clone()
            bids[i] = misreport[b, i]
            outcome = mechanism(bids)
            expected = -outcome.payment[i]
            for j in range(m):
                expected = expected + values[b, i, j] * outcome.allocation[i, j]
            assert abs(float(found[b, i] - expected)) < 1e-12


def test_deviate_changes_one_bidder_a_profile() -> None:
    values, misreport = torch.zeros(4, 3, 2), torch.ones(4, 3, 2)
    profiles = deviate(values, misreport)
    assert profiles.shape == (4, 3, 3, 2)
    for i in range(3):
        assert bool((profiles[:, i, i] == 1).all())
        assert float(profiles[:, i].sum()) == 4 * 2


def test_an_axis_of_candidates_is_scored_against_one_batch(two_by_two: UniformBox) -> None:
    mechanism = network(two_by_two)
    values, candidates = torch.rand(6, 2, 2), torch.rand(9, 6, 2, 2)
    together = deviation_utility(mechanism, values, candidates)
    one_by_one = torch.stack([deviation_utility(mechanism, values, candidate) for candidate in candidates])
    assert torch.allclose(together, one_by_one, atol=1e-6)


def test_utility_and_revenue() -> None:
    outcome = Outcome(torch.tensor([[0.5, 1.0], [0.5, 0.0]]), torch.tensor([0.25, 0.125]))
    values = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    assert utility(values, outcome).tolist() == [0.75, 0.125]
    assert float(revenue(outcome)) == 0.375
