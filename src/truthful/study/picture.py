"""Revenue against regret of all trials of a study, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from truthful.ceilings import KnownAuction
from truthful.published import TABLE_1
from truthful.study.front import Finished
from truthful.study.pruning import Audited

MARKERS = {"standard": "s", "local": "^"}
"""Of the published auctions."""
FAR = 2.0
"""What earns less than the front by so many times the front's height is counted, but not drawn."""


def save_front(
    trials: Sequence[Finished], stopped: Sequence[Audited], rival: KnownAuction | None, title: str, path: Path
) -> None:
    """Draw the trials, the front, and what is known of the setting.

    Args:
        trials: those that are complete, by regret.
        stopped: the last audit of each trial that was stopped early.
        rival: the best truthful auction known.
        title: of the picture.
        path: of the PNG file.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    axes = figure.subplots()
    points = [Audited(one.audit["revenue"], one.audit["regret"]) for one in trials]
    best = [point for point, one in zip(points, trials, strict=True) if one.best]
    top, bottom = max(point.revenue for point in best), min(point.revenue for point in best)
    levels = _levels(trials[0].content, rival)
    published = {} if trials[0].content["setting_overridden"] else _published(trials[0].content["setting"])
    heights = [level for level, _, _ in levels if level > bottom] + [point.revenue for point in published.values()]
    least = bottom - FAR * max(max([top, *heights]) - bottom, 0.01 * top)

    first = [point for point, one in zip(points, trials, strict=True) if one.first]

    def draw(group: Sequence[Audited], label: str, *style: Any, **more: Any) -> None:
        seen = [point for point in group if point.revenue >= least and point.regret > 0]
        hidden = f", {len(group) - len(seen)} not in view" if len(seen) < len(group) else ""
        where = [point.regret for point in seen], [point.revenue for point in seen]
        axes.plot(*where, *style, **more, label=label + hidden)

    if stopped:
        draw(stopped, f"{len(stopped)} stopped early, when stopped", "x", color="C7", markersize=5, alpha=0.7)
    draw(points, f"{len(points)} trials", "o", color="C0", markersize=4, alpha=0.5)
    draw(best, "no other trial earns more at less regret", "o-", color="C3", markersize=6, drawstyle="steps-post")
    draw(first, "the recipe", "*", color="C1", markersize=13)
    for name, point in published.items():
        draw([point], f"published {TABLE_1[trials[0].content['setting'], name].method}", MARKERS[name], color="black")
    for height, label, style in levels:
        if height >= least:
            axes.axhline(height, color="gray", linewidth=1, linestyle=style, label=f"{label}, {height:.4f}")
    audit = trials[0].audit
    axes.set(
        xscale="log",
        xlabel=f"regret found, mean over bidders: a lower bound\naudit={audit['tier']}, {audit['samples']:,} profiles",
        ylabel="revenue",
        title=title,
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda regret, _: f"{regret:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25, which="both", linewidth=0.5)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))  # beside, where nothing is hidden
    figure.savefig(path, dpi=130)


def _published(setting: str) -> dict[str, Audited]:
    return {mode: Audited(row.revenue, row.regret) for (name, mode), row in TABLE_1.items() if name == setting}


def _levels(content: dict[str, Any], rival: KnownAuction | None) -> list[tuple[float, str, str]]:
    """What truthful auctions earn at most, and the best known one."""
    optimum, bound = content.get("optimal_revenue"), content.get("bound")
    if optimum is not None:
        return [(float(optimum), "best truthful auction, exact", "--")]
    levels = [(float(bound["limit"]), "upper bound on truthful auctions", "--")] if bound else []
    return [*levels, (rival.revenue, f"a truthful auction ({rival.name})", ":")] if rival else levels
