"""Correlated valuations with one common factor."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from truthful.settings.marginals import Marginals, MarginalSetting, densities, value_by_value
from truthful.shapes import Float


class CommonFactor(MarginalSetting):
    """v_ij = F_ij^-1(Phi(z_ij)) with z_ij = sqrt(rho) g + sqrt(1 - rho) e_ij, all g and e_ij standard normal.

    Every value keeps its own law F_ij; all n m of them, of one bidder and of different ones, are linked by a Gaussian
    copula with equal correlations rho (a one-factor model, Vasicek 1987). So optimal auctions for independent values
    are none for these, unless rho is 0.

    Args:
        n_bidders: number of bidders n.
        n_items: number of items m.
        law: a law, one law an item, or one row a bidder of one law an item.
        correlation: rho, the correlation of any two z, at least 0 and below 1. That of the values is about as large.
        demand: `additive` or `unit`.
    """

    def __init__(self, n_bidders: int, n_items: int, law: Marginals, correlation: float, demand: str) -> None:
        if isinstance(correlation, bool) or not isinstance(correlation, (int, float)) or not 0 <= correlation < 1:
            raise ValueError(f"correlation must be a number of at least 0 and below 1, got {correlation!r}")
        super().__init__(n_bidders, n_items, law, demand)
        self.correlation = float(correlation)
        self.independent = correlation == 0 or n_bidders * n_items == 1

    def quantile(self, unit: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n m"]:
        """Values from independent uniform numbers: as normal ones, times the symmetric root of their correlations."""
        rho, count = self.correlation, self.n_bidders * self.n_items
        tiny = torch.finfo(unit.dtype).eps / 2
        normal = torch.special.ndtri(unit.clamp(tiny, 1 - tiny))
        own, common = math.sqrt(1 - rho), math.sqrt(1 - rho + rho * count)
        linked = own * normal + (common - own) * normal.mean((-1, -2), keepdim=True)
        return value_by_value(self.laws, lambda law, part: law.quantile(part), torch.special.ndtr(linked))

    def density(self, values: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b"] | None:
        """The Gaussian copula's density times those of the values; None if a law has none.

        In corners of the support it may be infinite or undefined; it is taken a rounding inside.
        """
        each = densities(self.laws, values)
        if each is None:
            return None
        rho, count = self.correlation, self.n_bidders * self.n_items
        tiny = torch.finfo(values.dtype).eps / 2
        below = value_by_value(self.laws, lambda law, part: law.cdf(part), values)
        normal = torch.special.ndtri(below.clamp(tiny, 1 - tiny))
        squares, square = normal.square().sum((-1, -2)), normal.sum((-1, -2)).square()
        common = 1 - rho + rho * count
        copula = torch.exp(-rho / (2 * (1 - rho)) * (squares - square / common))
        scale = (1 - rho) ** (-(count - 1) / 2) * common**-0.5
        density: Tensor = scale * copula * each.prod(-1).prod(-1)
        return density

    def describe(self) -> str:
        """The laws and the correlation."""
        return f"{super().describe()}, correlated ({self.correlation:g})"
