"""Independent uniform valuations on a box: the family of the paper's settings (a) to (e)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from truthful.laws import Uniform
from truthful.settings.base import Bound, Setting
from truthful.settings.optimum import Menu, Optimum
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
        self.exchangeable_bidders = len(set(self.laws)) == 1
        self.exchangeable_items = all(len(set(row)) == 1 for row in self.laws)

    def sample(self, size: int, generator: torch.Generator) -> Float[Tensor, "{size} n m"]:
        """Draw `size` profiles on the generator's device, in float32."""
        return self.quantile(
            torch.rand(size, self.n_bidders, self.n_items, generator=generator, device=generator.device)
        )

    def quantile(self, unit: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n m"]:
        """Linear in each coordinate."""
        low, high = self.bounds(unit)
        return (low + (high - low) * unit).clamp(low, high)  # rounding may step over a bound

    def project(self, values: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n m"]:
        """Clip every value to its interval."""
        return values.clamp(*self.bounds(values))

    @property
    def optimum(self) -> Optimum | None:
        """The optimum where a formula is known; it follows the bounds, so an overridden setting never borrows one.

        One item, i.i.d. U[0, h]: Myerson (1981), reserve h/2. One bidder, two items: U[0, h]^2 additive, Manelli and
        Vincent (2006), (12 + 2 sqrt 2)/27 h; U[0, h]^2 unit demand, Pavlov (2011), 2/(3 sqrt 3) h; U[4, 16] x U[4, 7]
        additive, Daskalakis, Deckelbaum and Tzamos (2017), 88/9.
        """
        scale = float(self.high[0, 0])
        zero_based = bool((self.low == 0).all()) and bool((self.high == scale).all())
        n, m, additive = self.n_bidders, self.n_items, self.demand == "additive"
        if m == 1 and zero_based:
            revenue = scale * (2 * n / (n + 1) * (1 - 2.0 ** -(n + 1)) - (1 - 2.0**-n))
            return Optimum(revenue, "Myerson 1981", "itemwise_myerson")
        if (n, m) == (1, 2) and zero_based and additive:
            one, both = 2 / 3 * scale, (4 - math.sqrt(2)) / 3 * scale
            menu: Menu = (((1.0, 0.0), one), ((0.0, 1.0), one), ((1.0, 1.0), both))
            return Optimum(scale * (12 + 2 * math.sqrt(2)) / 27, "Manelli and Vincent 2006", "menu", menu)
        if (n, m) == (1, 2) and zero_based:
            price = scale / math.sqrt(3)
            return Optimum(2 / 3 * price, "Pavlov 2011", "menu", (((1.0, 0.0), price), ((0.0, 1.0), price)))
        if (n, m) == (1, 2) and additive and self.low.tolist() == [[4, 4]] and self.high.tolist() == [[16, 7]]:
            menu = (((0.5, 1.0), 8.0), ((1.0, 1.0), 12.0))
            return Optimum(88 / 9, "Daskalakis, Deckelbaum and Tzamos 2017", "menu", menu)
        return None
