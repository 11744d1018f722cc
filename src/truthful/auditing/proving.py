"""The `certified` tier: upper bounds beside what the attack found, or an honest no."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from truthful.auditing.all_values import MOST_ITEMS, AllValues, certify_all_values
from truthful.auditing.certificate import Certificate, certify
from truthful.auditing.find import Findings
from truthful.auditing.journal import Journal
from truthful.auditing.models import model_of
from truthful.auditing.tiers import CertificateBudget
from truthful.mechanisms import Mechanism
from truthful.settings import Setting
from truthful.shapes import Float

TOGETHER = 64
"""Profiles that are certified between two entries in the journal."""
MAX_PAIRS = 2**24
"""Budget of pairs of a box of values and a box of reports, for all values of a bidder."""


@dataclass(frozen=True)
class Proven:
    """lower <= regret <= upper over a region of reports, for a number of instances."""

    instances: int
    closed: int
    """Those with upper - lower <= eps ..."""
    open: int
    """... and the others, whose upper bounds hold, too."""
    regret_lower: float
    """Mean over bidders of the lower ..."""
    regret_upper: float
    """... and of the upper bounds."""
    max_lower: float
    max_upper: float
    boxes: float
    """Boxes bounded for an instance, on average."""
    seconds: float


def prove(
    mechanism: Mechanism,
    setting: Setting,
    budget: CertificateBudget,
    values: Float[Tensor, "b n c"],
    found: Findings,
    journal: Journal,
    progress: Callable[[str, float], None],
) -> tuple[dict[str, Any], Float[Tensor, "b n"] | None, Findings]:
    """Bound the regret of every instance from above.

    Args:
        mechanism: what is audited.
        setting: what it is audited on.
        budget: how far branch and bound goes.
        values: the profiles, in float64.
        found: by the attack.
        journal: keeps finished parts.
        progress: is told how far it is.

    Returns:
        What the report says of it, the upper bounds (None if there are none), and the findings, better where the
        certificate came across a better misreport.
    """
    eps = budget.eps * float(setting.high.max())
    parts = ("all_reports", "small_lies", "all_values", "population", "beyond_the_attack")
    said: dict[str, Any] = {"method": "none", "eps": eps, **dict.fromkeys(parts)}
    if mechanism.theorem:
        upper = torch.zeros_like(found.gain)
        text = f"no lie pays, by theorem ({mechanism.theorem})"
        return said | {"method": "theorem", "statement": text}, upper, found
    try:
        model_of(mechanism, 0)
    except ValueError as error:
        return said | {"statement": f"no upper bound: {error}"}, None, found

    few = setting.n_items <= budget.items
    boxes = budget.max_boxes if few else budget.vain_boxes
    everywhere, seconds = _certify(mechanism, setting, values, found, eps, boxes, None, journal, progress)
    shape = found.gain.shape
    lower, upper = everywhere.lower.view(shape), everywhere.upper.view(shape)
    largest, share = float(upper.max()), min(1.0, 3 / len(values))
    said |= {
        "method": "branch and bound",
        "statement": "lower <= regret <= upper for every instance, over all reports in the bidder's box",
        "all_reports": asdict(_summary(everywhere, seconds)),
        "population": {
            "regret": largest,
            "share": share,
            "statement": f"with 95 % confidence at most {round_up(100 * share)} % of all profiles have a bidder with a "
            f"regret above {round_up(largest)}",
        },
    }
    if setting.n_items <= MOST_ITEMS:
        said["all_values"] = _all_values(mechanism, setting, budget, values, eps, journal, progress)
    if not few:
        near, seconds = _certify(
            mechanism, setting, values, found, eps, budget.small_boxes, budget.radius, journal, progress
        )
        said["small_lies"] = {"radius": budget.radius, **asdict(_summary(near, seconds))}
    better = lower > found.gain
    misreport = torch.where(better.unsqueeze(-1), everywhere.misreport.view(values.shape), found.misreport)
    said["beyond_the_attack"] = float((lower - found.gain).max().clamp_min(0))
    found = replace(found, gain=torch.maximum(lower, found.gain), misreport=misreport)
    return said, torch.maximum(upper, found.gain), found


def round_up(number: float) -> str:
    """An upper bound in four significant digits, never below it."""
    if number <= 0:
        return "0"
    unit = 10.0 ** (math.floor(math.log10(number)) - 3)
    return f"{math.ceil(number / unit * (1 - 1e-12)) * unit:.4g}"


def _certify(
    mechanism: Mechanism,
    setting: Setting,
    values: Tensor,
    found: Findings,
    eps: float,
    max_boxes: int,
    radius: float | None,
    journal: Journal,
    progress: Callable[[str, float], None],
) -> tuple[Certificate, float]:
    name = "certificate" if radius is None else "small lies"
    bidder = torch.arange(setting.n_bidders, device=values.device)
    parts = []
    for first in range(0, len(values), TOGETHER):
        profiles = values[first : first + TOGETHER]

        def compute(profiles: Tensor = profiles, first: int = first) -> list[Tensor]:
            start = time.perf_counter()
            reports = found.misreport[first : first + TOGETHER].flatten(0, 1)
            if radius is not None:
                reports = profiles.flatten(0, 1)
            done = certify(
                mechanism,
                setting,
                profiles.repeat_interleave(setting.n_bidders, 0),
                bidder.repeat(len(profiles)),
                reports,
                eps,
                max_boxes,
                radius,
                lambda share: progress(name, (first + share * len(profiles)) / len(values)),
            )
            seconds = torch.tensor([time.perf_counter() - start])
            return [done.lower, done.upper, done.closed, done.boxes, done.misreport, seconds]

        parts.append(journal.part(f"{name} {first}", compute))
    *tensors, seconds = (torch.cat(column) for column in zip(*parts, strict=True))
    return Certificate(*tensors), float(seconds.sum())


def _all_values(
    mechanism: Mechanism,
    setting: Setting,
    budget: CertificateBudget,
    values: Tensor,
    eps: float,
    journal: Journal,
    progress: Callable[[str, float], None],
) -> dict[str, Any]:
    """The largest regret over all values of a bidder: of the whole game with one, else at a few opponents' values."""
    n = setting.n_bidders
    profiles = values[: 1 if n == 1 else budget.opponents]
    results, seconds = [], 0.0
    for k, profile in enumerate(profiles):
        for bidder in range(n):

            def compute(profile: Tensor = profile, bidder: int = bidder) -> list[Any]:
                start = time.perf_counter()
                done = certify_all_values(mechanism, setting, profile, bidder, eps, budget.max_boxes, MAX_PAIRS)
                return [*vars(done).values(), time.perf_counter() - start]

            *result, spent = journal.part(f"all values {k} {bidder}", compute)
            results.append(AllValues(*result))
            seconds += spent
            progress("all values", len(results) / (n * len(profiles)))
    worst = max(results, key=lambda result: result.lower)
    upper = max(result.upper for result in results)
    where = "in the whole game" if n == 1 else f"at the others' values in {len(profiles)} profiles"
    return {
        "statement": f"no value of any bidder has a regret above {round_up(upper)} {where}",
        "opponents": None if n == 1 else len(profiles),
        "instances": len(results),
        "closed": sum(result.closed for result in results),
        "mean_lower": sum(result.lower for result in results) / len(results),
        "mean_upper": sum(result.upper for result in results) / len(results),
        "max_lower": worst.lower,
        "max_upper": upper,
        "worst_value": worst.worst_value.tolist(),
        "misreport": worst.misreport.tolist(),
        "seconds": seconds,
    }


def _summary(proven: Certificate, seconds: float) -> Proven:
    closed = int(proven.closed.sum())
    return Proven(
        instances=len(proven.closed),
        closed=closed,
        open=len(proven.closed) - closed,
        regret_lower=float(proven.lower.mean()),
        regret_upper=float(proven.upper.mean()),
        max_lower=float(proven.lower.max()),
        max_upper=float(proven.upper.max()),
        boxes=float(proven.boxes.double().mean()),
        seconds=seconds,
    )
