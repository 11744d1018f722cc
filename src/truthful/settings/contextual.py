"""Values that depend on public contexts of bidders and items (Duan et al. 2022)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from truthful.settings.base import Bound, Setting
from truthful.shapes import Float, Int


class Contextual(Setting):
    """Bidders and items have contexts of d public numbers each; given all of them, values are independent.

    A bidder's row of a profile is his m values, his context, and the m contexts of the items. Contexts are drawn anew
    for each profile and nobody reports them. Misreports are kept in the smallest box that contains the supports for all
    contexts: regret is over more reports than a bidder with this context could make without being seen to lie.

    Args:
        n_bidders: number of bidders n.
        n_items: number of items m.
        high: largest value, whatever the contexts; the smallest is 0.
        dimension: numbers of a context, d.
        demand: `additive` or `unit`.
    """

    convex_support = True
    exchangeable_bidders = True
    exchangeable_items = True

    def __init__(self, n_bidders: int, n_items: int, high: Bound, dimension: int, demand: str) -> None:
        if isinstance(dimension, bool) or not isinstance(dimension, int) or dimension < 1:
            raise ValueError(f"contexts must have a whole number of entries, at least 1, got {dimension!r}")
        super().__init__(n_bidders, n_items, 0.0, high, demand)
        self.dimension = dimension
        self.features = dimension * (1 + n_items)

    def sample(self, size: int, generator: torch.Generator) -> Float[Tensor, "{size} n c"]:
        """Contexts, then values given them."""
        bidders = self.contexts(size, self.n_bidders, generator)
        items = self.contexts(size, self.n_items, generator)
        unit = torch.rand(size, self.n_bidders, self.n_items, generator=generator, device=generator.device)
        values = self.given(bidders, items, unit)
        return torch.cat([values, bidders, items.flatten(1).unsqueeze(1).expand(-1, self.n_bidders, -1)], -1)

    @abstractmethod
    def contexts(self, size: int, count: int, generator: torch.Generator) -> Float[Tensor, "{size} {count} d"]:
        """Draw the contexts of `count` bidders, or items."""

    @abstractmethod
    def given(
        self, bidders: Float[Tensor, "b n d"], items: Float[Tensor, "b m d"], unit: Float[Tensor, "b n m"]
    ) -> Float[Tensor, "b n m"]:
        """Values from uniform numbers, given contexts."""

    def project(self, values: Float[Tensor, "*b n r"]) -> Float[Tensor, "*b n r"]:
        """Clip every value to the box."""
        return values.clamp(*self.bounds(values))


class ContinuousContexts(Contextual):
    """Contexts x_i of bidders and y_j of items uniform on [-1, 1]^d, and v_ij ~ U[0, sigmoid(x_i . y_j)].

    Args:
        n_bidders, n_items, demand: as of any setting.
        dimension: numbers of a context, d.
    """

    def __init__(self, n_bidders: int, n_items: int, dimension: int, demand: str) -> None:
        super().__init__(n_bidders, n_items, 1.0, dimension, demand)
        self.high = torch.tensor(float(dimension)).double().sigmoid().expand(n_bidders, n_items).clone()

    def contexts(self, size: int, count: int, generator: torch.Generator) -> Float[Tensor, "{size} {count} d"]:
        """Uniform on the cube."""
        return 2 * torch.rand(size, count, self.dimension, generator=generator, device=generator.device) - 1

    def given(
        self, bidders: Float[Tensor, "b n d"], items: Float[Tensor, "b m d"], unit: Float[Tensor, "b n m"]
    ) -> Float[Tensor, "b n m"]:
        """Uniform up to the sigmoid of the product."""
        return unit * (bidders @ items.mT).sigmoid()

    def describe(self) -> str:
        """Both laws."""
        return f"values U[0, sigmoid(x . y)], contexts x of bidders and y of items U[-1, 1]^{self.dimension}"


class DiscreteContexts(Contextual):
    """Contexts from 1 to k, each as likely, and v_ij normal around ((x_i + y_j) mod k + 1)/(k + 1), cut to [0, 1].

    Of k = 10 and a deviation of 0.05 in Duan et al. A context is public as k numbers, of which one is 1.

    Args:
        n_bidders, n_items, demand: as of any setting.
        contexts: number of different ones, k.
        deviation: standard deviation before cutting.
    """

    def __init__(self, n_bidders: int, n_items: int, contexts: int, deviation: float, demand: str) -> None:
        super().__init__(n_bidders, n_items, 1.0, contexts, demand)
        if not deviation > 0:
            raise ValueError(f"deviation must be above 0, got {deviation!r}")
        self.deviation = deviation

    def contexts(self, size: int, count: int, generator: torch.Generator) -> Float[Tensor, "{size} {count} d"]:
        """One of k numbers is 1."""
        chosen = torch.randint(self.dimension, (size, count), generator=generator, device=generator.device)
        return torch.nn.functional.one_hot(chosen, self.dimension).float()

    def given(
        self, bidders: Float[Tensor, "b n d"], items: Float[Tensor, "b m d"], unit: Float[Tensor, "b n m"]
    ) -> Float[Tensor, "b n m"]:
        """By the inverse of the cut normal distribution, in double precision."""
        k = self.dimension
        number: Int[Tensor, "b n m"] = bidders.argmax(-1).unsqueeze(-1) + items.argmax(-1).unsqueeze(-2) + 2
        mean = (number % k + 1).double() / (k + 1)
        below, upto = (torch.special.ndtr((end - mean) / self.deviation) for end in (0, 1))
        normal = torch.special.ndtri(below + (upto - below) * unit.double())
        values: Tensor = (mean + self.deviation * normal).clamp(0, 1).to(unit)
        return values

    def describe(self) -> str:
        """Both laws."""
        k = self.dimension
        return (
            f"values normal around ((x + y) mod {k} + 1)/{k + 1}, deviation {self.deviation:g}, on [0, 1], "
            f"contexts x of bidders and y of items from 1 to {k}"
        )
