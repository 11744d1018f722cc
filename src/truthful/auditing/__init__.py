"""Audits: how much revenue a mechanism earns, and how much a bidder can gain by lying."""

from __future__ import annotations

import copy
import hashlib
import io
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from truthful.auction import Outcome, with_reports
from truthful.auditing.best_response import best_response_revenue, has_menu, revenue_under
from truthful.auditing.earnings import Earnings, earnings, fresh_earnings
from truthful.auditing.find import Progress, find_misreports
from truthful.auditing.flags import FLAGS, find_flags
from truthful.auditing.foreign import Rule, as_mechanism
from truthful.auditing.instances import ROWS
from truthful.auditing.journal import Journal
from truthful.auditing.proving import prove
from truthful.auditing.report import LOWER_BOUND, AuditReport, make_report
from truthful.auditing.tiers import TIERS, Portfolio, Tier
from truthful.auditing.violations import audit_constraints
from truthful.errors import whole
from truthful.mechanisms import Mechanism
from truthful.mechanisms.base import device_of
from truthful.settings import Setting
from truthful.streams import Stream, generator

__all__ = ["FLAGS", "LOWER_BOUND", "TIERS", "AuditReport", "Tier", "audit", "audit_constraints", "check_audit"]


def audit(
    mechanism: Mechanism | Rule,
    setting: Setting,
    tier: str = "strong",
    samples: int = 10_000,
    seed: int = 1,
    stream: Stream = Stream.AUDIT,
    revenue_samples: int | None = None,
    bound: float | None = None,
    journal: Path | str | None = None,
    progress: Progress | None = None,
) -> AuditReport:
    """Audit a mechanism on `samples` fresh profiles of the setting; of observed ones, on as many as there are at most.

    Args:
        mechanism: on any device; left as it is. Any callable of bids (rows, n, m) that returns an `Outcome` or
            (allocation, payment) will do; without gradients it is searched without them, and flagged.
        setting: of the same shape and demand.
        tier: name of a preset in `TIERS`.
        samples: number of profiles, at least 2.
        seed: of the profiles and of the search's starts.
        stream: `AUDIT` for numbers to report, `HELD_OUT` for monitoring.
        revenue_samples: revenue is the mean over so many profiles of their own, at least 2; over the regret's if None.
        bound: upper bound on the revenue of truthful auctions: revenue above it is flagged.
        journal: a file for finished parts: the same audit goes on from it after an interruption, to the same result.
            It is kept: delete it when you have the report. Two callables that are no modules and agree on a few hundred
            profiles of bids look the same to it.
        progress: called with what is being done (`attack`, `revenue`, `certificate`, `all values`, `small lies`) and
            which share of it is done.

    Returns:
        The report. Its regret is a lower bound: what the tier's search found.

    Raises:
        ValueError: an unknown tier, too few samples, a mechanism that does not fit the setting, or one whose outcomes
            of truthful reports are not all numbers.
    """
    check_audit(tier, samples, seed, revenue_samples)
    if not isinstance(setting, Setting):
        raise ValueError(f"setting must be a Setting such as truthful.settings.UniformBox, got {setting!r}")
    drawn = setting.part(stream)
    asked, samples = samples, drawn.at_most(samples)
    audited = as_mechanism(mechanism, drawn)
    preset = TIERS[tier]
    values = drawn.sample(samples, generator(seed, stream)).to(device_of(audited))
    attack = preset.attack(setting.n_items)
    n_seeds = attack.seeds + 1 if isinstance(attack, Portfolio) else 1
    seeds = torch.randint(2**31, (n_seeds,), generator=generator(seed, stream, 1)).tolist()

    exact = copy.deepcopy(audited).double().requires_grad_(False)
    profiles = values.double()
    outcome = _outcome(exact, profiles)
    sound = outcome.allocation.isfinite().flatten(1).all(1) & outcome.payment.isfinite().all(1)
    if not bool(sound.all()):
        raise ValueError(
            f"the mechanism's outcomes are NaN or infinite in {int((~sound).sum())} of {samples} profiles with "
            "truthful reports: are there NaN weights?"
        )
    path = None if journal is None else Path(journal)
    identity = "" if path is None else _identity(preset, seed, stream, setting, exact, profiles, outcome)
    kept = Journal(path, identity)
    told = progress or (lambda stage, share: None)
    found = find_misreports(audited, setting, attack, values, seeds, kept, told)
    earned = earnings(outcome)
    if revenue_samples is not None:
        told("revenue", 0.0)
        fresh = kept.part(
            f"revenue of {revenue_samples}",
            lambda: asdict(fresh_earnings(audited, setting, revenue_samples, seed, stream)),
        )
        earned = Earnings(**fresh)
        told("revenue", 1.0)
    certificate, upper = None, None
    if preset.certificate is not None:
        certificate, upper, found = prove(audited, setting, preset.certificate, profiles, found, kept, told)
    if has_menu(setting):
        played = best_response_revenue(exact, setting, profiles, found.misreport)
    else:
        played = revenue_under(exact, profiles, found.misreport)
    report = make_report(
        tier=preset,
        seed=seed,
        setting=setting,
        values=profiles,
        observations=drawn.observations,
        earned=earned,
        found=found,
        played=played,
        certificate=certificate,
        upper=upper,
        seconds=kept.seconds,
        flags=find_flags(exact, setting, profiles, outcome, earned, found, certificate, bound, asked),
    )
    kept.save()
    return report


def check_audit(tier: str, samples: int, seed: int, revenue_samples: int | None = None) -> None:
    """Raise ValueError unless an audit can be made with these."""
    if not isinstance(tier, str) or tier not in TIERS:
        raise ValueError(f"audit.tier must be one of {', '.join(TIERS)}, got {tier!r}")
    whole("audit.samples", samples, 2)
    if revenue_samples is not None and (
        isinstance(revenue_samples, bool) or not isinstance(revenue_samples, int) or revenue_samples < 2
    ):
        raise ValueError(
            f"audit.revenue_samples must be a whole number of at least 2, or null for audit.samples, "
            f"got {revenue_samples!r}"
        )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"audit.seed must be a whole number, got {seed!r}")


@torch.no_grad()
def _outcome(mechanism: Mechanism, profiles: Tensor) -> Outcome:
    """Outcomes of truthful reports, a few profiles at a time."""
    parts = [mechanism(part) for part in profiles.split(ROWS)]
    return Outcome(torch.cat([part.allocation for part in parts]), torch.cat([part.payment for part in parts]))


def _identity(
    preset: Tier, seed: int, stream: Stream, setting: Setting, mechanism: Mechanism, profiles: Tensor, outcome: Outcome
) -> str:
    """A digest of whatever an audit's result depends on, this package's code included."""
    few, told = profiles[:256], setting.reports(profiles[:256])
    told = setting.project(torch.stack([told.roll(1, 0), told.flip(-1), told * 0, told * 0 + 1e9]))
    elsewhere = _outcome(mechanism, with_reports(few.expand(4, *few.shape), told).flatten(0, 1))
    parts = [
        *(repr(part) for part in (preset, seed, stream, setting.shape, type(setting), torch.__version__)),
        *(repr(part) for part in (setting.observed, profiles.device)),
        *(part.cpu() for part in (setting.low, setting.high, profiles, *mechanism.state_dict().values())),
        *(part.cpu() for each in (outcome, elsewhere) for part in (each.allocation, each.payment)),
    ]
    file = io.BytesIO()
    torch.save(parts, file)
    sources = sorted(Path(__file__).parent.parent.rglob("*.py"))
    return hashlib.sha256(b"".join([file.getvalue(), *(path.read_bytes() for path in sources)])).hexdigest()
