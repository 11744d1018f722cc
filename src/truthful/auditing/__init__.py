"""Audits: how much revenue a mechanism earns, and how much a bidder can gain by lying."""

from __future__ import annotations

import copy
import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.auditing.best_response import best_response_revenue, revenue_under
from truthful.auditing.find import Progress, find_misreports
from truthful.auditing.flags import FLAGS, find_flags
from truthful.auditing.foreign import Rule, as_mechanism, has_gradient
from truthful.auditing.instances import ROWS
from truthful.auditing.journal import Journal
from truthful.auditing.proving import prove
from truthful.auditing.report import LOWER_BOUND, AuditReport, make_report
from truthful.auditing.tiers import TIERS, Portfolio, Tier
from truthful.mechanisms import Mechanism
from truthful.settings import Setting
from truthful.streams import Stream, generator

__all__ = ["FLAGS", "LOWER_BOUND", "TIERS", "AuditReport", "Tier", "audit", "check_audit"]


def audit(
    mechanism: Mechanism | Rule,
    setting: Setting,
    tier: str = "strong",
    samples: int = 10_000,
    seed: int = 1,
    stream: Stream = Stream.AUDIT,
    journal: Path | None = None,
    progress: Progress | None = None,
) -> AuditReport:
    """Audit a mechanism on `samples` fresh profiles of the setting.

    Args:
        mechanism: on any device; left as it is. Any callable of bids (rows, n, m) that returns an `Outcome` or
            (allocation, payment) will do; without gradients it is searched without them, and flagged.
        setting: of the same shape and demand.
        tier: name of a preset in `TIERS`.
        samples: number of profiles, at least 2.
        seed: of the profiles and of the search's starts.
        stream: `AUDIT` for numbers to report, `HELD_OUT` for monitoring.
        journal: a file for finished parts: an audit that was interrupted goes on from it, to the same result.
        progress: called with the name of a stage and the share of it that is done.

    Returns:
        The report. Its regret is a lower bound: what the tier's search found.

    Raises:
        ValueError: an unknown tier, too few samples, a mechanism that does not fit the setting, or one whose outcomes
            are not numbers.
    """
    check_audit(tier, samples, seed)
    audited = as_mechanism(mechanism, setting)
    preset = TIERS[tier]
    device = next((tensor.device for tensor in [*audited.parameters(), *audited.buffers()]), torch.device("cpu"))
    values = setting.sample(samples, generator(seed, stream)).to(device)
    attack = preset.attack(setting.n_items)
    n_seeds = attack.seeds + 1 if isinstance(attack, Portfolio) else 1
    seeds = torch.randint(2**31, (n_seeds,), generator=generator(seed, stream, 1)).tolist()

    exact = copy.deepcopy(audited).double().requires_grad_(False)
    profiles = values.double()
    outcome = _outcome(exact, profiles)
    if not bool(outcome.allocation.isfinite().any() & outcome.payment.isfinite().any()):
        raise ValueError("the mechanism's outcomes are not numbers: are there NaN weights?")
    identity = _identity(attack, seed, stream, profiles, outcome.allocation, outcome.payment) if journal else ""
    kept = Journal(journal, identity)
    told = progress or (lambda stage, share: None)
    found = find_misreports(audited, setting, attack, values, seeds, kept, told)
    certificate, upper = None, None
    if preset.certificate is not None:
        certificate, upper, found = prove(audited, setting, preset.certificate, profiles, found, kept, told)
    if setting.n_bidders == 1:
        played = best_response_revenue(exact, setting, profiles, found.misreport)
    else:
        played = revenue_under(exact, found.misreport)
    report = make_report(
        tier=preset,
        seed=seed,
        setting=setting,
        values=profiles,
        outcome=outcome,
        found=found,
        played=played,
        certificate=certificate,
        upper=upper,
        seconds=kept.seconds,
        flags=find_flags(exact, setting, profiles, outcome, found, certificate, has_gradient(audited, values[:1])),
    )
    kept.close()
    return report


def check_audit(tier: str, samples: int, seed: int) -> None:
    """Raise ValueError unless an audit can be made with these."""
    if tier not in TIERS:
        raise ValueError(f"audit.tier must be one of {', '.join(TIERS)}, got {tier!r}")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 2:
        raise ValueError(f"audit.samples must be a whole number of at least 2, got {samples!r}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"audit.seed must be a whole number, got {seed!r}")


@torch.no_grad()
def _outcome(mechanism: Mechanism, profiles: Tensor) -> Outcome:
    """Outcomes of truthful reports, a few profiles at a time."""
    parts = [mechanism(part) for part in profiles.split(ROWS)]
    return Outcome(torch.cat([part.allocation for part in parts]), torch.cat([part.payment for part in parts]))


def _identity(*parts: Any) -> str:
    """A digest of whatever an audit's result depends on."""
    file = io.BytesIO()
    torch.save([part if isinstance(part, Tensor) else repr(part) for part in parts], file)
    return hashlib.sha256(file.getvalue()).hexdigest()
