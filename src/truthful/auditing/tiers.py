"""The audit's searches: frozen presets, because a tier's name in a table must mean one thing."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Portfolio:
    """The sizes of the attack (`attack.py`)."""

    seeds: int
    """How often everything random is repeated from another seed."""
    sobol_points: int
    """Quasi-random points of the bidder's box that are scored."""
    near_points: int
    """Points scored at distances from the truth of .001 to .5 of the box, evenly in the logarithm."""
    scored_starts: int
    """How many of all scored points are ascended from ..."""
    random_starts: int
    """... beside the truth and so many that nobody scored,"""
    first_rung: int
    """for so many iterations;"""
    kept: int
    """how many go on after that,"""
    second_rung: int
    """for how many iterations."""
    pool: int
    """How many of the most profitable reports of a bidder are tried on all his instances,"""
    pooled_starts: int
    """and ascended from."""
    last_rung: int
    """Iterations in float64 from the best report of all."""
    compass_rounds: int
    """Rounds of the gradient-free search where those have a sharp end (a kink, a jump) ..."""
    compass_directions: int
    """... and its directions."""
    probed_profiles: int
    """Profiles on which a search of `probe_factor` times the size checks whether more starts still gain."""
    probe_factor: int

    def describe(self) -> str:
        """What is searched, in words."""
        repeated = "" if self.seeds == 1 else f", from {self.seeds} seeds"
        sharp = ", a compass search where gradients do not lead" if self.compass_rounds else ""
        return (
            f"projected BFGS from the truth, from the best {self.scored_starts} of "
            f"{self.sobol_points + self.near_points} quasi-random points and structured lines, and from "
            f"{self.random_starts} unscored points; the {self.pool} best reports of each bidder tried on all his "
            f"instances{repeated}{sharp}; refined and scored in float64"
        )


@dataclass(frozen=True)
class ManyStarts:
    """The literature's search: many random starts, a fixed number of Adam steps from each."""

    starts: int
    steps: int
    first_length: float
    """Length of the first step, as a share of the box ..."""
    last_length: float
    """... and of the last; in between it falls geometrically."""

    def describe(self) -> str:
        """What is searched, in words."""
        return (
            f"{self.starts} uniform random starts x {self.steps} projected Adam steps of length falling from "
            f"{self.first_length:g} to {self.last_length:g} of the box, best report seen, scored in float64"
        )


@dataclass(frozen=True)
class CertificateBudget:
    """How far the branch and bound of `certificate.py` goes."""

    eps: float
    """It closes an instance when upper - lower is at most this share of the largest value ..."""
    max_boxes: int
    """... and leaves it open after so many boxes."""
    items: int
    """With more items than this the whole box is out of reach ..."""
    vain_boxes: int
    """... this budget gives the bound that is reached ..."""
    radius: float
    """... and all lies within this share of the box from the truth are certified, too ..."""
    small_boxes: int
    """... with this budget."""
    opponents: int
    """With one or two items: profiles at whose opponents all values of each bidder are certified, too."""


@dataclass(frozen=True)
class Tier:
    """One preset."""

    name: str
    promise: str
    """What its numbers may be used for."""
    few_items: Portfolio | ManyStarts
    """The attack where there are one or two items ..."""
    many_items: Portfolio | ManyStarts
    """... and where there are more: a larger space has more basins."""
    certificate: CertificateBudget | None = None

    def attack(self, n_items: int) -> Portfolio | ManyStarts:
        """The attack for so many items."""
        return self.few_items if n_items <= 2 else self.many_items


FAST = Portfolio(
    seeds=1,
    sobol_points=64,
    near_points=16,
    scored_starts=3,
    random_starts=1,
    first_rung=4,
    kept=2,
    second_rung=12,
    pool=16,
    pooled_starts=1,
    last_rung=3,
    compass_rounds=0,
    compass_directions=0,
    probed_profiles=0,
    probe_factor=0,
)
STRONG = Portfolio(
    seeds=2,
    sobol_points=192,
    near_points=48,
    scored_starts=5,
    random_starts=2,
    first_rung=6,
    kept=3,
    second_rung=40,
    pool=32,
    pooled_starts=2,
    last_rung=16,
    compass_rounds=100,
    compass_directions=16,
    probed_profiles=16,
    probe_factor=8,
)
STRONG_MANY = replace(STRONG, scored_starts=6, random_starts=3, kept=4, second_rung=16, last_rung=40)
PAPER = ManyStarts(starts=1000, steps=1000, first_length=0.1, last_length=0.001)

TIERS = {
    tier.name: tier
    for tier in (
        Tier("fast", "a lower bound; for monitoring and model selection", FAST, FAST),
        Tier("strong", "a lower bound, from two seeds whose disagreement is reported", STRONG, STRONG_MANY),
        Tier("paper", "a lower bound; for comparability with the literature, on a few profiles", PAPER, PAPER),
        Tier(
            "certified",
            "lower <= regret <= upper for each instance, or open with the upper bound reached",
            STRONG,
            STRONG_MANY,
            CertificateBudget(
                eps=1e-4, max_boxes=20_000, items=3, vain_boxes=250, radius=0.01, small_boxes=2_000, opponents=16
            ),
        ),
    )
}
