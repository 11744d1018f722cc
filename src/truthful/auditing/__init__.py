"""Audits: how much revenue a mechanism earns, and how much a bidder can gain by lying."""

from __future__ import annotations

import copy
import math
import time

import torch
from torch import Tensor

from truthful.auction import deviation_utility, revenue, utility
from truthful.auditing.attack import worst_misreports
from truthful.auditing.report import LOWER_BOUND, AuditReport, find_flags
from truthful.auditing.tiers import TIERS, Tier
from truthful.mechanisms import Mechanism
from truthful.settings import Setting
from truthful.streams import Stream, generator

__all__ = ["TIERS", "AuditReport", "Tier", "audit", "check_audit"]


def audit(
    mechanism: Mechanism,
    setting: Setting,
    tier: str,
    samples: int,
    seed: int,
    stream: Stream = Stream.AUDIT,
) -> AuditReport:
    """Audit a mechanism on `samples` fresh profiles of the setting.

    Args:
        mechanism: on any device; left as it is.
        setting: of the same shape and demand.
        tier: name of a preset in `TIERS`.
        samples: number of profiles, at least 2.
        seed: of the profiles and of the search's starts.
        stream: `AUDIT` for numbers to report, `HELD_OUT` for monitoring.

    Returns:
        The report. Its regret is a lower bound: what the tier's search found.

    Raises:
        ValueError: an unknown tier, too few samples, or a mechanism that does not fit the setting.
    """
    check_audit(tier, samples, seed)
    shape, expected = (mechanism.n_bidders, mechanism.n_items), (setting.n_bidders, setting.n_items)
    if (*shape, mechanism.demand) != (*expected, setting.demand):
        raise ValueError(
            f"the mechanism is for {shape[0]} bidders x {shape[1]} items and {mechanism.demand} demand, the setting "
            f"has {expected[0]} x {expected[1]} and {setting.demand} demand"
        )
    start = time.perf_counter()
    preset = TIERS[tier]
    device = next((tensor.device for tensor in [*mechanism.parameters(), *mechanism.buffers()]), torch.device("cpu"))
    values = setting.sample(samples, generator(seed, stream)).to(device)
    drawn = setting.sample(preset.random_starts * samples, generator(seed, stream, 1)).to(device)
    scramble = int(torch.randint(2**31, (), generator=generator(seed, stream, 2)))
    misreport = worst_misreports(mechanism, setting, preset, values, drawn.unflatten(0, (-1, samples)), scramble)
    return _report(mechanism, setting, preset, seed, values.double(), misreport.double(), start)


def check_audit(tier: str, samples: int, seed: int) -> None:
    """Raise ValueError unless an audit can be made with these."""
    if tier not in TIERS:
        raise ValueError(f"audit.tier must be one of {', '.join(TIERS)}, got {tier!r}")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 2:
        raise ValueError(f"audit.samples must be a whole number of at least 2, got {samples!r}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"audit.seed must be a whole number, got {seed!r}")


@torch.no_grad()
def _report(
    mechanism: Mechanism, setting: Setting, tier: Tier, seed: int, values: Tensor, misreport: Tensor, start: float
) -> AuditReport:
    """Score the misreports in float64: a maximum over many float32 numbers is biased upwards."""
    exact = copy.deepcopy(mechanism).double()
    outcome = exact(values)
    truthful = utility(values, outcome)
    signed_gain = deviation_utility(exact, values, setting.project(misreport)) - truthful
    gain = signed_gain.clamp_min(0)
    earned = revenue(outcome)
    mean_revenue, revenue_se = float(earned.mean()), float(earned.std()) / len(values) ** 0.5
    regret_sum = float(gain.sum(-1).mean())
    return AuditReport(
        tier=tier.name,
        search=tier.search,
        statement=LOWER_BOUND,
        samples=len(values),
        seed=seed,
        revenue=mean_revenue,
        revenue_se=revenue_se,
        regret=float(gain.mean()),
        regret_se=float(gain.mean(-1).std()) / len(values) ** 0.5,
        regret_sum=regret_sum,
        regret_ratio=regret_sum / mean_revenue if mean_revenue else None,
        regret_p95=float(gain.flatten().kthvalue(math.ceil(0.95 * gain.numel())).values),
        regret_max=float(gain.max()),
        regret_by_bidder=gain.mean(0).tolist(),
        forward_passes=tier.forward_passes,
        seconds=time.perf_counter() - start,
        flags=find_flags(setting, values, outcome, truthful, misreport, signed_gain, mean_revenue, revenue_se),
    )
