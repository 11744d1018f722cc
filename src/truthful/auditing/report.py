"""What an audit says, and the doubts it raises itself."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from truthful.auction import Outcome
from truthful.settings import Setting
from truthful.shapes import Float

LOWER_BOUND = "Regret is what the named search found: a lower bound on the true regret."

TOLERANCE = 1e-6
"""Violations below this share of the largest value are rounding."""


@dataclass(frozen=True)
class AuditReport:
    """Revenue and regret on fresh profiles. Money is in units of value; standard errors are over profiles."""

    tier: str
    search: str
    """The search behind every regret here, in words."""
    statement: str
    samples: int
    seed: int
    revenue: float
    revenue_se: float
    regret: float
    """Mean over bidders (the literature's table number)."""
    regret_se: float
    regret_sum: float
    """Sum over bidders (what a budget constrains, relative to revenue)."""
    regret_ratio: float | None
    """`regret_sum` / `revenue`; None without revenue."""
    regret_p95: float
    """95th percentile over instances; an instance is a profile and a bidder."""
    regret_max: float
    """Largest over instances."""
    regret_by_bidder: list[float]
    forward_passes: int
    """Cost of the search for one instance."""
    seconds: float
    flags: list[str]
    """Reasons to doubt the report; see docs/audit.md."""

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON, which knows no NaN: a number that is not finite becomes None (and has a flag)."""
        numbers = asdict(self)
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in numbers.items()}


def find_flags(
    setting: Setting,
    values: Float[Tensor, "b n m"],
    outcome: Outcome,
    truthful_utility: Float[Tensor, "b n"],
    misreport: Float[Tensor, "b n m"],
    gain: Float[Tensor, "b n"],
    mean_revenue: float,
    revenue_se: float,
) -> list[str]:
    """The checks that every audit makes. `gain` is the float64 re-score, before it is cut at 0."""
    slack = TOLERANCE * float(setting.high.max())
    given = outcome.allocation
    infeasible = bool((given < -TOLERANCE).any()) or bool((given.sum(-2) > 1 + TOLERANCE).any())
    if setting.demand == "unit":
        infeasible |= bool((given.sum(-1) > 1 + TOLERANCE).any())
    outside = (misreport - setting.project(misreport)).abs().max() > slack
    optimum = setting.optimal_revenue
    checks = {
        "not_finite": not bool(gain.isfinite().all()) or not bool(outcome.payment.isfinite().all()),
        "infeasible": infeasible,
        "individual_rationality_violated": bool((truthful_utility < -slack).any()),
        "misreport_outside_support": bool(outside),
        "no_revenue": mean_revenue <= slack,
        "rescore_disagrees": bool((gain < -slack).any()),
        "revenue_above_optimum": optimum is not None and mean_revenue - 3 * revenue_se > optimum,
    }
    return [flag for flag, raised in checks.items() if raised]
