"""Maximum-weight matchings of many small bipartite graphs at once."""

from __future__ import annotations

import torch
from torch import Tensor

from truthful.shapes import Float

SIDE = 10
"""The most nodes on the smaller side: the dynamic programme goes over its subsets."""


def check_size(n_bidders: int, n_items: int) -> None:
    """Raise ValueError for a graph whose smaller side is too large."""
    if min(n_bidders, n_items) > SIDE:
        raise ValueError(
            f"matchings are found over all subsets of the smaller side, which may have up to {SIDE} bidders or items, "
            f"got {n_bidders} bidders and {n_items} items"
        )


def largest_weight(weights: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b"]:
    """Weight of a maximum-weight matching. An edge of weight -inf is none."""
    table = _tables(weights if weights.shape[-2] >= weights.shape[-1] else weights.mT)[-1]
    return table[..., -1]


def best_matching(weights: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n m"]:
    """A maximum-weight matching, as zeros and ones. Edges of weight 0 are used rather than left."""
    if weights.shape[-2] < weights.shape[-1]:
        return best_matching(weights.mT).mT
    tables = _tables(weights)
    columns = weights.shape[-1]
    matched = torch.zeros_like(weights)
    left = torch.full(weights.shape[:-2], 2**columns - 1, device=weights.device)
    bits = 2 ** torch.arange(columns, device=weights.device)
    for row in reversed(range(weights.shape[-2])):
        before = tables[row]
        free = (left.unsqueeze(-1) & bits) > 0
        taken = before.gather(-1, left.unsqueeze(-1) & ~bits) + weights[..., row, :]
        options = torch.cat([torch.where(free, taken, -torch.inf), before.gather(-1, left.unsqueeze(-1))], -1)
        choice = options.argmax(-1, keepdim=True)
        chosen = torch.zeros_like(options).scatter(-1, choice, 1.0)[..., :-1]
        matched[..., row, :] = chosen
        left = left & ~(chosen.long() * bits).sum(-1)
    return matched


def _tables(weights: Tensor) -> list[Tensor]:
    """Entry k: the largest weight of the first k rows on every subset of the columns."""
    columns = weights.shape[-1]
    subsets = torch.arange(2**columns, device=weights.device)
    tables = [weights.new_zeros(*weights.shape[:-2], 2**columns)]
    for row in range(weights.shape[-2]):
        best = tables[-1]
        for column in range(columns):
            has = (subsets >> column & 1).bool()
            taken = tables[-1][..., subsets & ~(1 << column)] + weights[..., row, column, None]
            best = torch.where(has, torch.maximum(best, taken), best)
        tables.append(best)
    return tables
