"""Scores to chances that no item and, under unit demand, no bidder has too much of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from truthful.shapes import Float

Normalise = Callable[[Tensor, int], Tensor]
"""Scores along an axis to chances that sum to 1: a softmax, say."""


def score_shapes(n_bidders: int, n_items: int, demand: str) -> list[tuple[int, int]]:
    """Rows and columns of the score matrices that `share` takes.

    Rows are bidders and, in the first one, "nobody"; columns are items and, in the second one, "nothing".
    """
    return [(n_bidders + 1, n_items)] + [(n_bidders, n_items + 1)] * (demand == "unit")


def split(scores: Float[Tensor, "*b s"], shapes: list[tuple[int, int]]) -> list[Tensor]:
    """A vector of scores as matrices."""
    sizes = [rows * columns for rows, columns in shapes]
    return [part.unflatten(-1, shape) for part, shape in zip(scores.split(sizes, -1), shapes, strict=True)]


def share(scores: list[Tensor], normalise: Normalise) -> Float[Tensor, "*b n m"]:
    """Additive, one matrix: each item's chances over bidders and "nobody".

    Unit demand, two: the elementwise minimum of that and of each bidder's chances over items and "nothing", so that
    rows and columns sum to at most 1.
    """
    over_bidders = normalise(scores[0], -2)[..., :-1, :]
    if len(scores) == 1:
        return over_bidders
    return torch.minimum(over_bidders, normalise(scores[1], -1)[..., :-1])


def sparsemax(scores: Tensor, axis: int) -> Tensor:
    """The nearest point of the simplex (Martins and Astudillo 2016): piecewise linear, with exact zeros.

    Alternative k has a positive chance iff the scores above its own exceed it by less than 1 in total; the chances are
    what is left of the scores after one threshold for all of them, by which they sum to 1.
    """
    scores = scores.movedim(axis, -1)
    with torch.no_grad():
        above = (scores.unsqueeze(-2) - scores.unsqueeze(-1)).clamp_min(0).sum(-1)
        support = (above < 1).to(scores)
    threshold = ((scores * support).sum(-1, keepdim=True) - 1) / support.sum(-1, keepdim=True)
    return (scores - threshold).clamp_min(0).movedim(-1, axis)
