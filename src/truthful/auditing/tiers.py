"""The audit's searches: frozen presets, because a tier's name in a table must mean one thing.

`fast` is a first version: starts at the truth, at random and at scored Sobol points, each followed by gradient
ascent. Stronger tiers and a certified upper bound belong here, too.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tier:
    """One preset. Costs are for one instance, a profile and a bidder."""

    name: str
    sobol_points: int
    """Points of a scrambled Sobol sequence over the support's box that are scored ..."""
    sobol_starts: int
    """... and how many of the best of them are ascended from."""
    random_starts: int
    """Unscored starts, drawn from the setting's law."""
    steps: int
    """Ascent steps from each start."""
    first_length: float
    """Length of the first step, as a share of the support's width ..."""
    last_length: float
    """... and of the last; in between it falls geometrically."""

    @property
    def forward_passes(self) -> int:
        """Cost of an instance in forward passes of one bid profile; an input gradient counts as two more."""
        starts = 1 + self.sobol_starts + self.random_starts
        return self.sobol_points + starts * (3 * self.steps + 1) + 1

    @property
    def search(self) -> str:
        """What was searched, in words."""
        return (
            f"best of {1 + self.sobol_starts + self.random_starts} starts an instance (the truth, the best "
            f"{self.sobol_starts} of {self.sobol_points} Sobol points, {self.random_starts} random), {self.steps} "
            f"projected Adam steps each, best point seen, re-scored in float64"
        )


TIERS = {
    tier.name: tier
    for tier in (
        Tier("fast", sobol_points=128, sobol_starts=3, random_starts=2, steps=20, first_length=0.1, last_length=0.003),
    )
}
