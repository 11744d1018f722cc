"""Revenue against regret, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthful.published import TABLE_1
from truthful.report.equal_regret import Frontier

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = {"standard": "s", "local": "^"}
"""Of the published auctions."""
FAR = 1.0
"""A level further from the points than so many times their spread is named, but not drawn."""


def save_frontier(found: Sequence[Frontier], path: Path) -> None:
    """One panel a setting: every run, the mean of each budget with standard errors, and what is known."""
    from matplotlib.figure import Figure

    settings = sorted({frontier.setting for frontier in found})
    figure = Figure(figsize=(9.0 * max(1, len(settings)), 5.0), layout="constrained")
    panels = figure.subplots(1, max(1, len(settings)), squeeze=False)[0]
    for setting, axes in zip(settings, panels, strict=True):
        _panel(axes, setting, [frontier for frontier in found if frontier.setting == setting])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _panel(axes: Axes, setting: str, found: Sequence[Frontier]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    heights: list[float] = []
    for k, frontier in enumerate(found):
        color, points = f"C{k}", frontier.points
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
            label=frontier.label,
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
    axes.grid(alpha=0.25, which="both", linewidth=0.5)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))  # beside, where nothing is hidden


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
