"""Independent uniform valuations on a box: the family of the paper's settings (a) to (e)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from truthful.settings.base import Setting
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
    def optimal_revenue(self) -> float | None:
        """The optimum where a formula is known; it follows the bounds, so an overridden setting never borrows one.

        One item, i.i.d. U[0, h]: Myerson (1981), reserve h/2. One bidder, two items: U[0, h]^2 additive, Manelli and
        Vincent (2006), (12 + 2 sqrt 2)/27 h; U[0, h]^2 unit demand, Pavlov (2011), 2/(3 sqrt 3) h; U[4, 16] x U[4, 7]
        additive, Daskalakis, Deckelbaum and Tzamos (2017), 88/9.
        """
        scale = float(self.high[0, 0])
        zero_based = bool((self.low == 0).all()) and bool((self.high == scale).all())
        n, m, additive = self.n_bidders, self.n_items, self.demand == "additive"
        if m == 1 and zero_based:
            return scale * (2 * n / (n + 1) * (1 - 2.0 ** -(n + 1)) - (1 - 2.0**-n))
        if (n, m) == (1, 2) and zero_based:
            return scale * ((12 + 2 * math.sqrt(2)) / 27 if additive else 2 / (3 * math.sqrt(3)))
        if (n, m) == (1, 2) and additive and self.low.tolist() == [[4, 4]] and self.high.tolist() == [[16, 7]]:
            return 88 / 9
        return None
