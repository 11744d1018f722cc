"""The law of each value, when values have laws of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from truthful.laws import Law
from truthful.settings.base import Setting, exchangeable
from truthful.shapes import Float

Marginals = Law | Sequence[Law] | Sequence[Sequence[Law]]
"""One law for all values; one law an item; or one row a bidder, of one law an item."""

Laws = tuple[tuple[Law, ...], ...]


class MarginalSetting(Setting):
    """A setting in which every value has a law of its own, whatever links them.

    Args:
        n_bidders: number of bidders n.
        n_items: number of items m.
        law: a law, one law an item, or one row a bidder of one law an item.
        demand: `additive` or `unit`.
    """

    laws: Laws

    def __init__(self, n_bidders: int, n_items: int, law: Marginals, demand: str) -> None:
        laws = broadcast_laws(law, n_bidders, n_items)
        low, high = ([[getattr(entry, end) for entry in row] for row in laws] for end in ("low", "high"))
        super().__init__(n_bidders, n_items, low, high, demand)
        self.laws = laws
        self.convex_support = all(entry.convex for row in laws for entry in row)
        self.exchangeable_bidders, self.exchangeable_items = exchangeable(laws)

    def project(self, values: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n m"]:
        """Move every value to the nearest point of its law's support."""
        if self.convex_support:
            return values.clamp(*self.bounds(values))
        return value_by_value(self.laws, lambda law, part: law.project(part), values)


def broadcast_laws(law: Marginals, n_bidders: int, n_items: int) -> Laws:
    """Laws given as one, as one an item, or as one row a bidder, as a row for each bidder."""
    if isinstance(law, Law):
        return ((law,) * n_items,) * n_bidders
    expected = f"a law, {n_items} laws (one an item), or {n_bidders} rows (one a bidder) of {n_items} laws"
    rows: list[tuple[Law, ...]] = []
    for entry in law if isinstance(law, Sequence) else ():
        rows.append(tuple(entry) if isinstance(entry, Sequence) else (entry,))
    if isinstance(law, Sequence) and all(isinstance(entry, Law) for entry in law):
        rows = [sum(rows, ())] * n_bidders
    fits = len(rows) == n_bidders and all(len(row) == n_items for row in rows)
    if not fits or not all(isinstance(entry, Law) for row in rows for entry in row):
        raise ValueError(f"law must be {expected}, got {law!r}")
    return tuple(rows)


def value_by_value(
    laws: Laws, function: Callable[[Law, Tensor], Tensor], values: Float[Tensor, "*b n m"]
) -> Float[Tensor, "*b n m"]:
    """Apply a function of a law and a tensor to each value and its law."""
    if len(set(sum(laws, ()))) == 1:
        return function(laws[0][0], values)
    rows = [
        torch.stack([function(law, values[..., i, j]) for j, law in enumerate(row)], -1) for i, row in enumerate(laws)
    ]
    return torch.stack(rows, -2)


def densities(laws: Laws, values: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n m"] | None:
    """The density of each value under its own law; None if a law has none."""
    nowhere = torch.zeros(0)
    if any(law.density(nowhere) is None for law in set(sum(laws, ()))):
        return None

    def density(law: Law, part: Tensor) -> Tensor:
        found = law.density(part)
        assert found is not None
        return found

    return value_by_value(laws, density, values)
