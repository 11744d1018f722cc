"""Integrals against laws: Gauss-Legendre between the points where an integrand is not smooth, sums over atoms."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from truthful.laws.base import Law
from truthful.laws.cumulative import gauss_legendre_rule
from truthful.shapes import Float

TAILS = tuple(2.0**-k for k in range(1, 31, 3))
"""Chances at which a law's quantiles, from below and from above, divide an integral, so that long tails do no harm."""


def gauss_legendre(
    edges: Float[Tensor, "*b k"], order: int = 32
) -> tuple[Float[Tensor, "*b q"], Float[Tensor, "*b q"]]:
    """Nodes and weights of integrals, each from the first to the last of its ascending edges.

    Exact for a function that is a polynomial of degree 2 order - 1 between neighbouring edges.
    """
    edges = edges.double()
    nodes, weights = gauss_legendre_rule(order)
    left, width = edges[..., :-1, None], edges.diff()[..., None]
    return (left + width * nodes).flatten(-2), (width * weights).flatten(-2)


def ends_and_kinks(law: Law) -> list[float]:
    """Ascending points between which the cdf is smooth."""
    return sorted({law.low, *law.kinks, law.high})


def smooth_pieces(laws: Iterable[Law]) -> Float[Tensor, "k"]:
    """Ascending points between which the cdf of every law is smooth, and not too steep for Gauss-Legendre."""
    tails = torch.tensor([*TAILS, *(1 - tail for tail in TAILS)], dtype=torch.float64)
    points = []
    for law in laws:
        points += ends_and_kinks(law)
        if not has_atoms(law):
            points += law.quantile(tails).tolist()
    distinct: Tensor = torch.tensor(points, dtype=torch.float64).unique()
    return distinct


def has_atoms(law: Law) -> bool:
    """Whether the law is discrete: one without a density is."""
    return law.density(torch.tensor([law.low], dtype=torch.float64)) is None


def atoms(law: Law) -> tuple[Float[Tensor, "k"], Float[Tensor, "k"]]:
    """Values of a discrete law, ascending, and their probabilities.

    Raises ValueError if it has probability elsewhere than at its ends and kinks.
    """
    values = torch.tensor(ends_and_kinks(law), dtype=torch.float64)
    below, upto = cdf_below(law, values), law.cdf(values)
    expected = torch.cat([torch.zeros(1, dtype=torch.float64), upto[:-1]])
    if not torch.allclose(below, expected, atol=1e-12, rtol=0) or abs(float(upto[-1]) - 1) > 1e-12:
        raise ValueError(f"a law without a density must have its atoms at low, kinks and high, got {law!r}")
    return values, upto - expected


def cdf_below(law: Law, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """P(value < v)."""
    return law.cdf(torch.nextafter(values, torch.full_like(values, -torch.inf)))
