"""What an affine maximiser chooses among: all allocations, or the numbers of items that bidders get."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn

from truthful.mechanisms.allocations import Owners, all_owners, as_allocations, sorted_owners
from truthful.settings.base import Setting
from truthful.shapes import Float, Int

Allocate = Callable[[Int[Tensor, "b"]], Float[Tensor, "b n m"]]
"""The best allocation of each profile in the class that is asked for."""


class Choices(nn.Module, ABC):
    """The feasible allocations in classes: all of a class have the same boost, so only the best of them matters."""

    dropped: Int[Tensor, "n s"]
    """The class in which nobody gets what a bidder gets in a class."""

    def __init__(self, owners: list[Owners], kind: Callable[[Owners], Hashable], n_bidders: int) -> None:
        """`owners` has one allocation of each class; `kind` is what allocations of one class have in common."""
        super().__init__()
        self.owners = owners
        self.index = {kind(row): s for s, row in enumerate(owners)}
        without = [
            [self.index[kind(tuple(0 if owner == bidder else owner for owner in row))] for row in owners]
            for bidder in range(1, n_bidders + 1)
        ]
        self.register_buffer("dropped", torch.tensor(without))

    @abstractmethod
    def solve(self, bids: Float[Tensor, "b n m"]) -> tuple[Float[Tensor, "s b"], Allocate]:
        """The largest sum of the winners' bids in each class, and the allocations that attain it."""


class AllAllocations(Choices):
    """Each allocation is a class of its own. Raises ValueError if there are too many to try them all."""

    allocations: Tensor

    def __init__(self, n_bidders: int, n_items: int, demand: str) -> None:
        owners = all_owners(n_bidders, n_items, demand)
        super().__init__(owners, lambda row: row, n_bidders)
        self.register_buffer("allocations", as_allocations(owners, n_bidders))

    def solve(self, bids: Float[Tensor, "b n m"]) -> tuple[Float[Tensor, "s b"], Allocate]:
        """By one product with all allocations."""
        allocations = self.allocations.to(bids)
        return allocations.flatten(1) @ bids.flatten(1).T, lambda chosen: allocations[chosen]


class ItemCounts(Choices):
    """Allocations in which every bidder gets as many items are one class: for items that are exchangeable.

    With additive demand there are (n + m choose n): 286 for 3 bidders x 10 items, which have 4^10 allocations.
    """

    fewer: Int[Tensor, "n s"]
    """The class in which a bidder has one item less; -1: he has none."""

    def __init__(self, n_bidders: int, n_items: int, demand: str) -> None:
        def counts(row: Owners) -> tuple[int, ...]:
            return tuple(row.count(bidder) for bidder in range(1, n_bidders + 1))

        owners = sorted_owners(n_bidders, n_items, demand)
        super().__init__(owners, counts, n_bidders)
        held = [counts(row) for row in owners]
        less = [[(*row[:i], row[i] - 1, *row[i + 1 :]) for row in held] for i in range(n_bidders)]
        self.register_buffer("fewer", torch.tensor([[self.index.get(row, -1) for row in rows] for rows in less]))
        self.reached = [sum(sum(row) <= items for row in held) for items in range(n_items + 1)]
        """How many classes, which come in the order of the items sold, sell at most so many."""

    def solve(self, bids: Float[Tensor, "b n m"]) -> tuple[Float[Tensor, "s b"], Allocate]:
        """By a dynamic programme over the items, each of which goes to a bidder or to nobody."""
        tables = []  # for each item the largest sums of those before it, and a last row for what cannot be
        best = bids.new_zeros(1, len(bids))
        for item, size in enumerate(self.reached[1:]):
            tables.append(torch.cat([best, best.new_full((size + 1 - len(best), len(bids)), -math.inf)]))
            best = tables[-1][:size]
            for bidder, fewer in enumerate(self.fewer[:, :size]):
                best = torch.maximum(best, tables[-1][fewer] + bids[:, bidder, item])

        def allocate(chosen: Int[Tensor, "b"]) -> Float[Tensor, "b n m"]:
            allocation, profiles = torch.zeros_like(bids), torch.arange(len(bids), device=bids.device)
            for item in reversed(range(len(tables))):
                before = torch.cat([chosen[None], self.fewer[:, chosen]])
                sums = tables[item][before, profiles]
                sums[1:] += bids[..., item].T
                owner = sums.argmax(0)
                allocation[profiles, owner - 1, item] = (owner > 0).to(bids)
                chosen = before[owner, profiles]
            return allocation

        return best, allocate


def choices_of(setting: Setting) -> Choices:
    """Item counts where items are exchangeable, else all allocations."""
    return (ItemCounts if setting.exchangeable_items else AllAllocations)(**setting.shape)
