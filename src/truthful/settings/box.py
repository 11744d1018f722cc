"""Independent uniform valuations on a box: the family of the paper's settings (a) to (e)."""

from __future__ import annotations

from torch import Tensor

from truthful.laws import Uniform
from truthful.settings.base import Bound, Setting, exchangeable
from truthful.shapes import Float


class UniformBox(Setting):
    """v_ij ~ U[low_ij, high_ij], independent over bidders i and items j.

    Args:
        n_bidders: number of bidders n.
        n_items: number of items m.
        low, high: bounds; a scalar, one number an item, or one row a bidder.
        demand: `additive` or `unit`.
    """

    convex_support = True
    independent = True

    def __init__(self, n_bidders: int, n_items: int, low: Bound, high: Bound, demand: str) -> None:
        super().__init__(n_bidders, n_items, low, high, demand)
        ends = zip(self.low.tolist(), self.high.tolist(), strict=True)
        self.laws = tuple(tuple(map(Uniform, *rows)) for rows in ends)
        self.exchangeable_bidders, self.exchangeable_items = exchangeable(self.laws)

    def quantile(self, unit: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n m"]:
        """Linear in each coordinate."""
        low, high = self.bounds(unit)
        return (low + (high - low) * unit).clamp(low, high)  # rounding may step over a bound

    def project(self, values: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n m"]:
        """Clip every value to its interval."""
        return values.clamp(*self.bounds(values))

    def density(self, values: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b"]:
        """One over the volume of the box, inside it."""
        low, high = self.bounds(values)
        inside = ((values >= low) & (values <= high)).all(-1).all(-1)
        return inside.to(values) / (high - low).prod()
