"""Total variation fairness: bidders of a class get about the same of similar items."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.constraints.base import Constraint
from truthful.duals import Dual
from truthful.settings import Setting
from truthful.shapes import Float


class TotalVariation(Constraint):
    """For every class C of bidders and items j, j': sum over i in C of |x_ij - x_ij'| is at most d_jj'.

    The constraint of ProportionNet (Kuo et al. 2020, after Ilvento, Jagadeesan and Chawla 2020: items are users,
    bidders advertisers of a category). The violation is the sum of all excesses, each pair of items counted once.

    Args:
        setting, tolerance, dual: as in every constraint.
        classes: the numbers of the bidders of each class, from 1 as in `regret_bidder_1`; None for all in one. A bidder
            may be in several or in none.
        d: how much allocations may differ: one number, or one for each pair of items, a symmetric matrix. What is on
            its diagonal does not matter. 0 means equal allocations, from 2 on nothing is asked for.
    """

    d: Tensor
    members: Tensor
    """Which bidders are in which class, a row each."""
    pairs: Tensor
    """The items of each pair."""

    def __init__(
        self,
        setting: Setting,
        tolerance: float,
        dual: Callable[..., Dual],
        classes: Sequence[Sequence[int]] | None,
        d: float | Sequence[Sequence[float]],
    ) -> None:
        super().__init__(setting, tolerance, dual)
        if self.n_items < 2:
            raise ValueError("total variation is between items, and there is only 1")
        self.register_buffer("members", _members(classes, self.n_bidders), persistent=False)
        self.register_buffer("d", _pairs(d, self.n_items), persistent=False)
        self.register_buffer("pairs", torch.triu_indices(self.n_items, self.n_items, 1), persistent=False)

    def forward(self, values: Float[Tensor, "*b n c"], outcome: Outcome) -> Float[Tensor, "*b"]:
        """The sum of excesses over classes and pairs of items."""
        allocation, (first, second) = outcome.allocation, self.pairs
        differences = (allocation.index_select(-1, first) - allocation.index_select(-1, second)).abs()
        return (self.members @ differences - self.d).relu().sum((-2, -1))


def _members(classes: Sequence[Sequence[int]] | None, n_bidders: int) -> Float[Tensor, "c n"]:
    if classes is None:
        return torch.ones(1, n_bidders)
    known = range(1, n_bidders + 1)
    if not isinstance(classes, Sequence) or not classes or not all(_is_class(one, known) for one in classes):
        example = "[[1],[2]]" if n_bidders > 1 else "[[1]]"
        raise ValueError(
            f"classes must be null, or a list of lists of different bidders from 1 to {n_bidders}, such as {example}, "
            f"got {classes!r}"
        )
    return torch.tensor([[float(bidder in one) for bidder in known] for one in classes])


def _is_class(one: object, known: range) -> bool:
    return (
        isinstance(one, list | tuple)
        and bool(one)
        and all(type(bidder) is int and bidder in known for bidder in one)
        and len(set(one)) == len(one)
    )


def _pairs(d: float | Sequence[Sequence[float]], n_items: int) -> Float[Tensor, "k"]:
    """d of each pair of items."""
    try:
        matrix = torch.as_tensor(d, dtype=torch.float64).expand(n_items, n_items)
    except (RuntimeError, TypeError, ValueError):
        matrix = torch.tensor(math.nan)
    if not bool((matrix >= 0).all()) or not torch.equal(matrix, matrix.mT):
        raise ValueError(
            f"d must be a number of at least 0, or a symmetric matrix of them with a row for each of the {n_items} "
            f"items, got {d!r}"
        )
    first, second = torch.triu_indices(n_items, n_items, 1)
    return matrix[first, second].float()
