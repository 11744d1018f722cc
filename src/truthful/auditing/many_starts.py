"""The literature's search, for comparison: many random starts and a fixed number of Adam steps from each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from truthful.auditing.attack import RANDOM, truth
from truthful.auditing.climb import Points, best_of
from truthful.auditing.columns import join
from truthful.auditing.instances import ROWS, Instances
from truthful.auditing.tiers import ManyStarts
from truthful.regret import AdamStep


def many_starts(instances: Instances, search: ManyStarts, seed: int) -> Points:
    """The best report seen from uniform random starts, the same for every instance, and the truth.

    Raises:
        ValueError: there are no gradients to follow.
    """
    if not instances.has_gradient:
        raise ValueError("this search follows gradients, and the mechanism has none; use audit=strong")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(search.starts, instances.values.shape[-1], generator=generator).to(instances.values)
    few = max(1, ROWS // search.starts)
    found = [truth(instances)]
    for group in instances.everyone.split(few):
        instance = group.repeat_interleave(search.starts)
        low, width = instances.low[instance], instances.width[instance]
        report = instances.project(instance, low + width * drawn.repeat(len(group), 1))
        found.append(_adam(instances, search, instance, report))
    return best_of(len(instances), join(*found))


def _adam(instances: Instances, search: ManyStarts, instance: Tensor, report: Tensor) -> Points:
    """The best report seen from each start."""
    rule = AdamStep(1.0)
    state: Sequence[Tensor] = rule.begin(report)
    width = instances.width[instance]
    length, decay = search.first_length, (search.last_length / search.first_length) ** (1 / max(1, search.steps - 1))
    best, highest = report, torch.full_like(report[:, 0], -torch.inf)
    for _ in range(search.steps):
        reached, gradient = instances.utility_and_gradient(instance, report)
        better = reached > highest
        best = torch.where(better.unsqueeze(-1), report, best)
        highest = torch.where(better, reached, highest)
        move, *state = rule(gradient * width, *state)
        report = instances.project(instance, report + length * width * move)
        length *= decay
    reached = instances.utility(instance, report)
    better = reached > highest
    best, highest = torch.where(better.unsqueeze(-1), report, best), torch.where(better, reached, highest)
    return Points(instance, best, highest, torch.full_like(instance, RANDOM))
