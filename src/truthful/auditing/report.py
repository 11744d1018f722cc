"""What an audit says."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from truthful.auditing.attack import MEMBERS
from truthful.auditing.best_response import has_menu
from truthful.auditing.earnings import Earnings
from truthful.auditing.find import Findings, Stage
from truthful.auditing.tiers import Tier
from truthful.settings import Setting
from truthful.shapes import Float

LOWER_BOUND = "Regret is what the named search found: a lower bound on the true regret."

NOTICEABLE = 1e-3
"""Regret above this is counted in the `share_above` numbers."""
SEEN = 1e-6
"""A report that gains less than this, as a share of the largest value, is not counted as found by anyone."""


@dataclass(frozen=True)
class Audited:
    """The instances behind the numbers, in float64."""

    values: Float[Tensor, "b n c"]
    misreport: Float[Tensor, "b n r"]
    """The best report found for each bidder, the others truthful; the truth where nothing better was found."""
    gain: Float[Tensor, "b n"]
    """What it earns over the truth: a lower bound on regret."""
    member: list[list[str]]
    """Where the search that found it started."""
    upper: Float[Tensor, "b n"] | None
    """Certified upper bound on regret, if there is one."""


@dataclass(frozen=True)
class AuditReport:
    """Revenue and regret on fresh profiles. Money is in units of value; standard errors are over profiles."""

    tier: str
    search: str
    """The search behind every regret here, in words."""
    promise: str
    """What the tier's numbers may be used for."""
    statement: str
    samples: int
    observations: int | None
    """With observed valuations, how many auctions the profiles come from, none of them twice; None: fresh draws."""
    seed: int
    revenue: float
    revenue_se: float
    revenue_samples: int
    """Profiles behind both; `samples`, the same ones, unless more were asked for."""
    regret: float
    """Mean over bidders (the literature's table number)."""
    regret_se: float
    regret_sum: float
    """Sum over bidders (what a budget constrains, relative to revenue)."""
    regret_ratio: float | None
    """`regret_sum` / `revenue`; None without revenue."""
    regret_p95: float
    """95th percentile over instances; an instance is a profile and a bidder."""
    regret_p99: float
    regret_max: float
    """Largest over instances."""
    regret_share_above: float
    """Share of instances with a regret above 1e-3."""
    regret_by_bidder: list[float]
    bidders: list[dict[str, float]]
    """For each bidder: regret, regret_se, regret_p95, regret_p99, regret_max, regret_share_above."""
    best_response_revenue: float | None
    """One bidder: revenue when he picks from one fixed finite menu of the mechanism's outcomes; exactly
    strategyproof."""
    best_response_revenue_se: float | None
    revenue_under_misreports: float | None
    """Several bidders: revenue when each plays his found misreport."""
    revenue_under_misreports_se: float | None
    found_by: dict[str, float]
    """Share of instances with a gain whose best report came from each member of the search."""
    distance: float
    """Mean distance of the found misreports from the truth, where they gain: max norm, as a share of the box."""
    on_boundary: float
    """Share of those misreports on the boundary of the box."""
    zero_gradients: float
    """Share of instances whose utility has exactly no slope at the truth."""
    compass_share: float
    """Share of instances in which a gradient-free search went on where ascents had ended."""
    seed_gap: float | None
    """Largest difference between what two seeds found for an instance ..."""
    seed_gap_share: float | None
    """... and the share of instances where it exceeds 1e-4 of the largest value. The report has the better one."""
    probe_gain: float | None
    """Largest further gain of a search eight times the size, on a few profiles."""
    stages: list[Stage]
    """Mean regret found against forward passes spent."""
    forward_passes: int
    """Cost of the search for one instance, in forward passes; an input gradient (forward and backward) counts as
    two."""
    seconds: float
    device: str
    """Where it was made: cpu or cuda."""
    certificate: dict[str, Any] | None
    """The upper bound, if one was asked for; see docs/audit.md."""
    flags: list[str]
    """Reasons to doubt the report; see docs/audit.md."""
    instances: Audited = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON, which knows no NaN: a number that is not finite becomes None (and has a flag)."""
        numbers = asdict(self)
        del numbers["instances"]
        plain: dict[str, Any] = _without_nan(numbers)
        return plain

    def save_misreports(self, path: Path) -> None:
        """Write the instances to a NumPy archive: values, misreport, gain, member, upper (where certified)."""
        import numpy

        audited = self.instances
        arrays = {name: getattr(audited, name).cpu().numpy() for name in ("values", "misreport", "gain")}
        if audited.upper is not None:
            arrays["upper"] = audited.upper.cpu().numpy()
        path.parent.mkdir(parents=True, exist_ok=True)
        numpy.savez_compressed(path, member=numpy.array(audited.member), **arrays)


def make_report(
    tier: Tier,
    seed: int,
    setting: Setting,
    values: Float[Tensor, "b n c"],
    observations: int | None,
    earned: Earnings,
    found: Findings,
    played: Float[Tensor, "b"],
    certificate: dict[str, Any] | None,
    upper: Float[Tensor, "b n"] | None,
    seconds: float,
    flags: list[str],
) -> AuditReport:
    """Statistics of what was found.

    Args:
        tier, seed: of the audit.
        setting: gives the support.
        values: the profiles, in float64.
        observations: the auctions that there are to draw them from, if they are observed ones.
        earned: revenue of truthful reports.
        found: by the attack.
        played: revenue of each profile when misreports are played.
        certificate, upper: what the certificate says.
        seconds: all of them.
        flags: the checks that raised doubts.
    """
    gain, samples = found.gain, len(values)
    by_profile = gain.mean(-1, keepdim=True)
    regret_sum = float(gain.sum(-1).mean())
    seen = gain > SEEN * float(setting.high.max())
    members = [[MEMBERS[k] for k in row] for row in found.member.tolist()]
    low, high = setting.bounds(values)
    away = ((found.misreport - setting.reports(values)).abs() / (high - low)).amax(-1)[seen]
    edge = ((found.misreport <= low) | (found.misreport >= high)).any(-1)[seen]
    played_mean, played_se = float(played.mean()), standard_error(played)
    single = has_menu(setting)
    return AuditReport(
        tier=tier.name,
        search=tier.attack(setting.n_items).describe(),
        promise=tier.promise,
        statement=LOWER_BOUND,
        samples=samples,
        observations=observations,
        seed=seed,
        revenue=earned.mean,
        revenue_se=earned.standard_error,
        revenue_samples=earned.profiles,
        regret_sum=regret_sum,
        regret_ratio=regret_sum / earned.mean if earned.mean else None,
        **_statistics(gain) | {"regret_se": standard_error(by_profile)},
        regret_by_bidder=gain.mean(0).tolist(),
        bidders=[_statistics(gain[:, i : i + 1]) for i in range(gain.shape[1])],
        best_response_revenue=played_mean if single else None,
        best_response_revenue_se=played_se if single else None,
        revenue_under_misreports=None if single else played_mean,
        revenue_under_misreports_se=None if single else played_se,
        found_by={name: _mean(found.member[seen] == k) for k, name in enumerate(MEMBERS)},
        distance=_mean(away),
        on_boundary=_mean(edge),
        zero_gradients=found.zero_gradient_share,
        compass_share=found.compass_share,
        seed_gap=found.seed_gap,
        seed_gap_share=found.seed_gap_share,
        probe_gain=found.probe_gain,
        stages=found.stages,
        forward_passes=round(found.forward_passes),
        seconds=seconds,
        device=values.device.type,
        certificate=certificate,
        flags=flags,
        instances=Audited(values, found.misreport, gain, members, upper),
    )


def _without_nan(entry: Any) -> Any:
    if isinstance(entry, dict):
        return {key: _without_nan(value) for key, value in entry.items()}
    if isinstance(entry, list):
        return [_without_nan(value) for value in entry]
    return None if isinstance(entry, float) and not math.isfinite(entry) else entry


def _statistics(gain: Float[Tensor, "b n"]) -> dict[str, float]:
    return {
        "regret": float(gain.mean()),
        "regret_se": standard_error(gain),
        "regret_p95": percentile(gain, 0.95),
        "regret_p99": percentile(gain, 0.99),
        "regret_max": float(gain.max()),
        "regret_share_above": float((gain > NOTICEABLE).double().mean()),
    }


def _mean(numbers: Tensor) -> float:
    """0 where there are none."""
    return float(numbers.double().mean()) if numbers.numel() else 0.0


def percentile(numbers: Tensor, share: float) -> float:
    """The smallest number that is no less than this share of them."""
    return float(numbers.flatten().kthvalue(math.ceil(share * numbers.numel())).values)


def standard_error(numbers: Tensor) -> float:
    """Of their mean; the first axis is of independent ones."""
    return float(numbers.std()) / math.sqrt(len(numbers))
