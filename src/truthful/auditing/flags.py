"""The doubts that every audit raises itself. Each is explained in docs/audit.md."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from truthful.auction import Outcome, utility
from truthful.auditing.earnings import Earnings
from truthful.auditing.find import DISAGREEMENT, Findings
from truthful.auditing.foreign import ForeignMechanism
from truthful.mechanisms import Mechanism
from truthful.settings import Setting
from truthful.shapes import Float

TOLERANCE = 1e-6
"""Violations below this share of the largest value are rounding."""

FLAGS = {
    "not_finite": "some reports have outcomes that are NaN or infinite; they were left out",
    "not_deterministic": "the same bids had different outcomes when asked again",
    "infeasible": "an item (unit demand: or a bidder) is allocated more than once",
    "individual_rationality_violated": "a truthful bidder pays more than he gets",
    "no_revenue": "the mechanism earns nothing",
    "revenue_above_optimum": "revenue is above the exact optimum: earned by violating incentive compatibility",
    "revenue_above_bound": "revenue is above an upper bound on truthful auctions: earned by violating truthfulness",
    "proof_contradicted": "a lie pays although the mechanism is proven strategyproof",
    "misreport_outside_support": "a misreport left the support",
    "rescore_disagrees": "float64 does not confirm the gains that float32 found",
    "seeds_disagree": "two seeds found different regrets: the search misses some, and the maximum may be higher",
    "more_starts_gain": "a larger search, or the certificate, found more: the regret may be higher",
    "no_gradients": "the mechanism has no gradients: it was searched without, which finds less",
    "zero_gradients": "utilities have no slope (prices, or saturation): only points and a gradient-free search count",
    "gradients_mislead": "a gradient-free search found more than ascents (kinks or jumps)",
    "narrow_strips": "outcomes are linear in pieces: lies in narrow strips between them escape searches; certify",
    "single_precision": "the mechanism does not take float64: gains are known to about 1e-6 only",
    "few_observations": "fewer auctions were observed than audit.samples asks for; the errors are those of so few",
    "not_certified": "there is no certificate for this kind of mechanism: its regret has no upper bound here",
    "open": "the certificate left instances open: their upper bounds are further than eps from the lower ones",
}
"""What each flag says, most serious first."""


@torch.no_grad()
def find_flags(
    mechanism: Mechanism,
    setting: Setting,
    values: Float[Tensor, "b n c"],
    outcome: Outcome,
    earned: Earnings,
    found: Findings,
    certificate: dict[str, Any] | None,
    bound: float | None,
    asked: int,
) -> list[str]:
    """The names of the doubts, most serious first.

    Args:
        mechanism: in float64.
        setting: what it is audited on.
        values: the profiles, in float64.
        outcome: of truthful reports.
        earned: the audit's revenue.
        found: by the attack.
        certificate: what it says, if there is one.
        bound: upper bound on the revenue of truthful auctions, if one is known.
        asked: the number of profiles that was asked for.
    """
    scale = float(setting.high.max())
    slack = TOLERANCE * scale
    given = outcome.allocation
    infeasible = bool((given < -TOLERANCE).any()) or bool((given.sum(-2) > 1 + TOLERANCE).any())
    if setting.demand == "unit":
        infeasible |= bool((given.sum(-1) > 1 + TOLERANCE).any())
    optimum, least = setting.optimal_revenue, earned.mean - 3 * earned.standard_error
    outside = (found.misreport - setting.project(found.misreport)).abs().max()
    checks = {
        "not_finite": found.broken > 0,
        "not_deterministic": not _repeats(mechanism, values, outcome, slack),
        "infeasible": infeasible,
        "individual_rationality_violated": bool((utility(values, outcome) < -slack).any()),
        "no_revenue": earned.mean <= slack,
        "revenue_above_optimum": optimum is not None and least > optimum,
        "revenue_above_bound": bound is not None and least > bound,
        "proof_contradicted": mechanism.theorem is not None and bool((found.gain > slack).any()),
        "misreport_outside_support": bool(outside > slack),
        "rescore_disagrees": bool(((found.searched - found.rescored).abs() > 10 * slack).any()),
        "seeds_disagree": found.seed_gap is not None and found.seed_gap > DISAGREEMENT * scale,
        "more_starts_gain": _more(found, certificate) > DISAGREEMENT * scale,
        "no_gradients": not found.has_gradient,
        "zero_gradients": found.has_gradient and found.zero_gradient_share > 0.5,
        "gradients_mislead": found.has_gradient and found.compass_share > 0.05,
        "narrow_strips": mechanism.kinked and (certificate is None or certificate["method"] == "none"),
        "single_precision": isinstance(mechanism, ForeignMechanism) and mechanism.single_precision,
        "few_observations": asked > len(values),
        "not_certified": certificate is not None and certificate["method"] == "none",
        "open": certificate is not None and _open(certificate),
    }
    return [flag for flag, raised in checks.items() if raised]


def _more(found: Findings, certificate: dict[str, Any] | None) -> float:
    """What a larger search, or the certificate, found beyond the attack."""
    return max(found.probe_gain or 0.0, (certificate or {}).get("beyond_the_attack") or 0.0)


def _open(certificate: dict[str, Any]) -> bool:
    parts = [certificate[name] for name in ("all_reports", "all_values") if certificate[name]]
    return any(part["closed"] < part["instances"] for part in parts)


def _repeats(mechanism: Mechanism, values: Tensor, outcome: Outcome, slack: float) -> bool:
    """Whether the same profiles have the same outcomes again, also among others."""
    few = values[: min(8, len(values))].flip(0)
    again = mechanism(few)
    allocation, payment = outcome.allocation[: len(few)].flip(0), outcome.payment[: len(few)].flip(0)
    close = torch.allclose(again.allocation, allocation, atol=TOLERANCE, rtol=0, equal_nan=True)
    return close and torch.allclose(again.payment, payment, atol=slack, rtol=0, equal_nan=True)
