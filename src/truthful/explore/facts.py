"""What the page says of an auction: its audited numbers, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from truthful.auditing import FLAGS
from truthful.ceilings import rounded_up


@dataclass(frozen=True)
class Facts:
    """Texts of the page."""

    title: str
    setting: str
    numbers: dict[str, str]
    """Shown large, by their names."""
    notes: dict[str, str]
    """Shown at the foot."""


def facts(
    title: str,
    setting: str,
    result: dict[str, Any] | None,
    origin: dict[str, Any],
    theorem: str | None,
    optimum: float | None,
) -> Facts:
    """The texts for an auction.

    Args:
        title: the auction in a few words.
        setting: its setting in a line.
        result: its result.json, or None if it has not been audited.
        origin: its training, command and commit, as far as they are known.
        theorem: by which no lie pays, if there is one.
        optimum: what the best truthful auction earns, if a theorem says so.
    """
    numbers = {} if result is None else _audited(result)
    if optimum is not None:
        numbers["best truthful auction"] = f"{optimum:.4f}"
    notes = {"audit": "there is no result.json beside the checkpoint" if result is None else _audit(result["audit"])}
    if theorem is not None:
        notes["audit"] = f"no lie pays, by a theorem: {theorem}"
    notes |= {name: str(origin[name]) for name in ("training", "command", "commit") if origin.get(name)}
    return Facts(title, setting, numbers, notes)


def _audited(result: dict[str, Any]) -> dict[str, str]:
    audit, bound = result["audit"], result["bound"]
    numbers = {
        "revenue": f"{audit['revenue']:.4f} ± {audit['revenue_se']:.4f}",
        "regret, at least": f"{audit['regret']:.5f} ± {audit['regret_se']:.5f}",
        "largest, at least": f"{audit['regret_max']:.4f}",
        "audit": f"{audit['tier']}, {audit['samples']:,} profiles",
    }
    proven = (audit["certificate"] or {}).get("all_reports")
    if proven:
        numbers["regret, proven at most"] = f"{proven['regret_upper']:.5f}"
    if bound is not None and result["optimal_revenue"] is None:
        numbers["any truthful auction"] = f"≤ {rounded_up(bound['limit'])}"
    return numbers


def _audit(audit: dict[str, Any]) -> str:
    return " ".join([f"{audit['search']}. {audit['statement']}", *(FLAGS.get(name, name) for name in audit["flags"])])
