"""truthful: learn revenue-maximising auctions with neural networks, fast, and show how truthful they are.

The core (settings, mechanisms, regret, duals, auditing) needs torch only. `truthful.training` needs lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from truthful.auction import Outcome, deviate, deviation_utility, revenue, utility
    from truthful.auditing import AuditReport, audit

_HOMES = {
    "Outcome": "truthful.auction",
    "deviate": "truthful.auction",
    "deviation_utility": "truthful.auction",
    "revenue": "truthful.auction",
    "utility": "truthful.auction",
    "AuditReport": "truthful.auditing",
    "audit": "truthful.auditing",
}

__all__ = ["AuditReport", "Outcome", "audit", "deviate", "deviation_utility", "revenue", "utility"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line answers before torch is loaded."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'truthful' has no attribute {name!r}")
