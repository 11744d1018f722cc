"""Independent valuations, each with a law of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from truthful.settings.base import Setting, exchangeable
from truthful.settings.marginals import Laws, Marginals, broadcast_laws, densities, value_by_value
from truthful.shapes import Float


class Independent(Setting):
    """v_ij with any law, independent over bidders i and items j.

    The support is convex if that of every law is. Otherwise local incentive compatibility does not suffice for DSIC: a
    bidder may gain by jumping across a gap although no small lie pays.

    Args:
        n_bidders: number of bidders n.
        n_items: number of items m.
        law: a law, one law an item, or one row a bidder of one law an item.
        demand: `additive` or `unit`.
    """

    laws: Laws
    independent = True

    def __init__(self, n_bidders: int, n_items: int, law: Marginals, demand: str) -> None:
        laws = broadcast_laws(law, n_bidders, n_items)
        low, high = ([[getattr(entry, end) for entry in row] for row in laws] for end in ("low", "high"))
        super().__init__(n_bidders, n_items, low, high, demand)
        self.laws = laws
        self.convex_support = all(entry.convex for row in laws for entry in row)
        self.exchangeable_bidders, self.exchangeable_items = exchangeable(laws)

    def sample(self, size: int, generator: torch.Generator) -> Float[Tensor, "{size} n m"]:
        """Draw `size` profiles on the generator's device, in float32."""
        return self.quantile(
            torch.rand(size, self.n_bidders, self.n_items, generator=generator, device=generator.device)
        )

    def quantile(self, unit: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n m"]:
        """The quantile function of each value's law."""
        return value_by_value(self.laws, lambda law, part: law.quantile(part), unit)

    def project(self, values: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n m"]:
        """Move every value to the nearest point of its law's support."""
        if self.convex_support:
            return values.clamp(*self.bounds(values))
        return value_by_value(self.laws, lambda law, part: law.project(part), values)

    def density(self, values: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b"] | None:
        """The product of the densities; None if a law has none."""
        each = densities(self.laws, values)
        return None if each is None else each.prod(-1).prod(-1)
