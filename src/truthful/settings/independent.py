"""Independent valuations, each with a law of its own."""

from __future__ import annotations

from torch import Tensor

from truthful.settings.marginals import MarginalSetting, densities, value_by_value
from truthful.shapes import Float


class Independent(MarginalSetting):
    """v_ij with any law, independent over bidders i and items j.

    The support is convex if that of every law is. Otherwise local incentive compatibility does not suffice for DSIC: a
    bidder may gain by jumping across a gap although no small lie pays.

    Args:
        n_bidders: number of bidders n.
        n_items: number of items m.
        law: a law, one law an item, or one row a bidder of one law an item.
        demand: `additive` or `unit`.
    """

    independent = True

    def quantile(self, unit: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n m"]:
        """The quantile function of each value's law."""
        return value_by_value(self.laws, lambda law, part: law.quantile(part), unit)

    def density(self, values: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b"] | None:
        """The product of the densities; None if a law has none."""
        each = densities(self.laws, values)
        return None if each is None else each.prod(-1).prod(-1)
