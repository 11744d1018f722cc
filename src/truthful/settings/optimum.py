"""What a theorem says about the best truthful auction of a setting."""

from __future__ import annotations

from dataclasses import dataclass

Menu = tuple[tuple[tuple[float, ...], float], ...]
"""Entries (chance of each item, price); the bidder may also take nothing for nothing."""


@dataclass(frozen=True)
class Optimum:
    """The revenue of the optimal DSIC and IR auction, and the auction that earns it."""

    revenue: float
    source: str
    """Who proved it."""
    mechanism: str | None
    """The auction, by its name in conf/mechanism; None if it has none there."""
    menu: Menu | None = None
    """With one bidder, its menu, where that is finite and known."""
    error: float = 0.0
    """How far `revenue` may be off, rounding aside: by a quadrature, or as the theorem is for almost these laws."""
