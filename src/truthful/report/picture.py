"""Revenue against regret, as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthful.published import TABLE_1
from truthful.report.equal_regret import Frontier, Point
from truthful.report.palette import NAMED, colors, some

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = {"standard": "s", "local": "^"}
"""Of the published auctions."""
ACROSS = 2
"""Panels side by side."""
FAR = 1.0
"""A level further from the points than so many times their spread is named, but not drawn."""


def save_frontier(found: Sequence[Frontier], path: Path) -> None:
    """One panel a setting: every run, the mean of each budget with standard errors, and what is known."""
    from matplotlib.figure import Figure

    settings = sorted({frontier.setting for frontier in found})
    across = min(ACROSS, len(settings)) or 1
    down = max(1, math.ceil(len(settings) / across))
    figure = Figure(figsize=(9.0 * across, 5.0 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for setting, axes in zip(settings, panels, strict=False):
        _panel(axes, setting, [frontier for frontier in found if frontier.setting == setting])
    for axes in panels[len(settings) :]:
        axes.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def undominated(points: Iterable[Point]) -> list[Point]:
    """Those that no other beats in both regret and revenue, in order of regret."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.regret, -point.revenue)):
        if not best or point.revenue > best[-1].revenue:
            best.append(point)
    return best


def _panel(axes: Axes, setting: str, found: Sequence[Frontier]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    heights: list[float] = []
    everything = [point for frontier in found for point in frontier.points]
    best = undominated(everything)
    if len(everything) > len(best) > 1:
        label = "none earns more at no more regret"
        steps: dict[str, Any] = {"drawstyle": "steps-post", "linewidth": 5, "alpha": 0.25, "zorder": 0}
        axes.plot([point.regret for point in best], [point.revenue for point in best], color="C8", label=label, **steps)
    named = [k for k, frontier in enumerate(found) if set(best) & set(frontier.points)]
    named = list(range(len(found))) if len(found) <= NAMED else [named[k] for k in some(len(named))]
    for k, (frontier, color) in enumerate(zip(found, colors(len(found)), strict=True)):
        points = frontier.points
        audits = [card.content["audit"] for row in frontier.rows for card in row.cards if len(row.cards) > 1]
        seen = [audit for audit in audits if audit["regret"] > 0]
        axes.plot([a["regret"] for a in seen], [a["revenue"] for a in seen], ".", color=color, alpha=0.35, markersize=4)
        axes.errorbar(
            [point.regret for point in points],
            [point.revenue for point in points],
            xerr=[point.regret_se for point in points],
            yerr=[point.revenue_se for point in points],
            fmt="o-",
            color=color,
            linewidth=1,
            markersize=5,
            capsize=2,
            label=frontier.label if k in named else None,
        )
        heights += [point.revenue for point in points] + [a["revenue"] for a in seen]
    for (name, mode), row in TABLE_1.items():
        if name == setting:
            label = f"published {row.method.removeprefix('RegretNet-')}"
            axes.plot([row.regret], [row.revenue], MARKERS[mode], color="black", markersize=8, label=label)
            heights.append(row.revenue)
    for height, label, style in _levels(found):
        spread = max(heights) - min(heights) if heights else 0.0
        if not heights or min(heights) - FAR * spread <= height <= max(heights) + FAR * spread:
            axes.axhline(height, color="gray", linewidth=1, linestyle=style, label=f"{label}, {height:.4f}")
        else:
            axes.plot([], [], color="gray", linewidth=1, linestyle=style, label=f"{label}, {height:.4f}: not in view")
    audits = sorted({f"audit={row.audit[0]}, {row.audit[1]:,} profiles" for one in found for row in one.rows})
    axes.set(
        xscale="log",
        xlabel=f"regret found, mean over bidders: a lower bound\n{'; '.join(audits)}",
        ylabel="revenue",
        title=f"setting {setting}",
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda regret, _: f"{regret:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelsize="small")
    axes.grid(alpha=0.25, which="both", linewidth=0.5)
    title = f"{len(named)} of {len(found)} methods" if len(named) < len(found) else None
    beside = (1.01, 1.0)  # where nothing is hidden
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=beside, title=title)


def _levels(found: Sequence[Frontier]) -> list[tuple[float, str, Any]]:
    """What truthful auctions earn at most, and the best known one."""
    levels: list[tuple[float, str, Any]] = []
    ceiling = next((row.ceiling for frontier in found for row in frontier.rows if row.ceiling), None)
    if ceiling is not None:
        what = {"optimum": "best truthful auction, exact", "bound": "upper bound on truthful auctions"}[ceiling[1]]
        levels.append((ceiling[0], what, "--"))
    best = next((row.best for frontier in found for row in frontier.rows if row.best), None)
    if best is not None and (ceiling is None or ceiling[1] != "optimum"):
        levels.append((best.revenue, f"a truthful auction ({best.name})", ":"))
    return levels
