"""What several entries of the audit ask of their arguments."""

from __future__ import annotations

import math

from truthful.errors import whole
from truthful.mechanisms import Mechanism
from truthful.settings import Setting


def check_fit(mechanism: Mechanism, setting: Setting) -> None:
    """Raise ValueError unless both are for the same auction."""
    for name in ("budgeted", "features"):
        mine, theirs = getattr(mechanism, name), getattr(setting, name)
        if mine != theirs:
            raise ValueError(f"the mechanism and the setting must agree in {name}, got {mine} and {theirs}")
    mine, theirs = ((one.n_bidders, one.n_items, one.demand) for one in (mechanism, setting))
    if mine != theirs:
        raise ValueError(
            f"the mechanism is for {mine[0]} bidders x {mine[1]} items and {mine[2]} demand, the setting has "
            f"{theirs[0]} x {theirs[1]} and {theirs[2]} demand"
        )


def check_effort(eps: float, **budgets: int) -> None:
    """Raise ValueError unless branch and bound can end: at a positive gap, or with each budget spent."""
    if not 0 < eps < math.inf:
        raise ValueError(f"eps must be positive, got {eps!r}")
    for name, budget in budgets.items():
        whole(name, budget, 1)
