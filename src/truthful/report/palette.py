"""Colours and legends of pictures with few or many curves."""

from __future__ import annotations

from typing import Any

DISTINCT = 10
"""So many colours can be told apart; more curves have shades, in their order."""
NAMED = 20
"""A legend names at most so many curves."""


def colors(count: int) -> list[Any]:
    """One for each of `count` curves."""
    if count <= DISTINCT:
        return [f"C{k}" for k in range(count)]
    from matplotlib import colormaps

    shades = colormaps["viridis"]
    return [shades(0.95 * k / (count - 1)) for k in range(count)]


def some(count: int) -> list[int]:
    """Which of `count` curves a legend names: evenly spread where they are too many."""
    if count <= NAMED:
        return list(range(count))
    return [round(k * (count - 1) / (NAMED - 1)) for k in range(NAMED)]
