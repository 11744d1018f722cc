"""Finitely many values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from truthful.laws.base import Law
from truthful.shapes import Float

SHOWN = 4
"""Atoms that a description lists."""


@dataclass(frozen=True)
class Discrete(Law):
    """Value atoms[k] with chance probabilities[k].

    Atoms ascend, at least two, and are rounded to single precision, in which values are drawn: so every precision
    agrees on which reports are atoms. Probabilities are positive and sum to 1. There is no density.
    """

    atoms: Sequence[float]
    probabilities: Sequence[float]
    low: float = field(init=False, repr=False, compare=False)
    high: float = field(init=False, repr=False, compare=False)
    convex = False

    def __post_init__(self) -> None:
        atoms = tuple(torch.tensor(self.atoms, dtype=torch.float32).flatten().tolist())
        if len(atoms) < 2 or list(atoms) != sorted(set(atoms)) or not 0 <= atoms[0] <= atoms[-1] < math.inf:
            raise ValueError(f"atoms must be at least two numbers >= 0 in ascending order, got {self.atoms!r}")
        probabilities = tuple(float(chance) for chance in self.probabilities)
        total = math.fsum(probabilities)
        if len(probabilities) != len(atoms) or not min(probabilities) > 0 or not abs(total - 1) < 1e-6:
            raise ValueError(
                f"probabilities must be {len(atoms)} positive numbers, one an atom, with sum 1, got "
                f"{self.probabilities!r}"
            )
        for name, entry in (
            ("atoms", atoms),
            ("probabilities", tuple(chance / total for chance in probabilities)),
            ("low", atoms[0]),
            ("high", atoms[-1]),
        ):
            object.__setattr__(self, name, entry)

    def cdf(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """A step at each atom."""
        upto = torch.cat([torch.zeros(1, dtype=torch.float64), self._upto])
        return upto.to(values)[torch.searchsorted(torch.tensor(self.atoms).to(values), values.contiguous(), right=True)]

    def quantile(self, unit: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """A step function."""
        return torch.tensor(self.atoms).to(unit)[torch.searchsorted(self._upto[:-1].to(unit), unit.contiguous())]

    def project(self, values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The nearest atom; the lower one of two."""
        nearest = torch.full_like(values, self.low)
        for lower, atom in itertools.pairwise(self.atoms):
            nearest = torch.where(values > (lower + atom) / 2, atom, nearest)
        return nearest

    @property
    def kinks(self) -> tuple[float, ...]:
        """The atoms inside (low, high)."""
        return tuple(self.atoms[1:-1])

    @property
    def pieces(self) -> tuple[tuple[float, float], ...]:
        """The atoms."""
        return tuple((atom, atom) for atom in self.atoms)

    @property
    def _upto(self) -> Float[Tensor, "k"]:
        upto = torch.tensor(self.probabilities, dtype=torch.float64).cumsum(0)
        upto[-1] = 1.0
        return upto

    def describe(self) -> str:
        """The atoms and their chances, if they are few."""
        if len(self.atoms) > SHOWN:
            return f"{len(self.atoms)} values from {self.low:g} to {self.high:g}"
        atoms, chances = (", ".join(f"{k:.3g}" for k in numbers) for numbers in (self.atoms, self.probabilities))
        return f"in {{{atoms}}} with chances {chances}"
