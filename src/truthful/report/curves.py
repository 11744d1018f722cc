"""Learning curves: what runs measured while they trained, against iterations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from truthful.report.cards import Card
from truthful.report.palette import colors, some
from truthful.report.rows import Row, labels
from truthful.series import METRICS, Series, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 100
"""A curve is the mean over so many parts of the training."""
PANELS = {
    "revenue": (("revenue", "held_out/revenue"), "linear"),
    "regret, mean over bidders": (("regret", "held_out/regret"), "log"),
    "multiplier": (("multiplier",), "log"),
    "R_max": (("rmax",), "log"),
}
"""Metrics and scale of each panel."""
HELD_OUT: dict[str, Any] = {"linestyle": "--", "marker": "o", "markersize": 3}


class Point(NamedTuple):
    """Of a curve: the mean over seeds and its standard error, 0 of a single one."""

    iteration: float
    mean: float
    error: float


@dataclass(frozen=True)
class Learning:
    """The runs of one recipe, a seed each, under way or finished."""

    setting: str
    label: str
    runs: tuple[Series, ...]

    def curve(self, metric: str) -> list[Point]:
        """A metric against iterations; empty where nobody measured it. Seeds count as far as they have come."""
        longest = max((entry["iteration"] for run in self.runs for entry in run.entries), default=0)
        bins: dict[int, list[tuple[float, float]]] = {}
        for run in self.runs:
            own: dict[int, list[tuple[float, float]]] = {}
            for entry in run.entries:
                if entry.get(metric) is not None:
                    place = math.ceil(entry["iteration"] * BINS / longest)
                    own.setdefault(place, []).append((entry["iteration"], entry[metric]))
            for place, measured in own.items():
                iterations, numbers = zip(*measured, strict=True)
                bins.setdefault(place, []).append((fmean(iterations), fmean(numbers)))
        return [_point(bins[place]) for place in sorted(bins)]


def _point(seeds: Sequence[tuple[float, float]]) -> Point:
    iterations, numbers = zip(*seeds, strict=True)
    count, mean = len(numbers), fmean(numbers)
    error = math.dist(numbers, [mean] * count) / math.sqrt(count * (count - 1)) if count > 1 else 0.0
    return Point(fmean(iterations), mean, error)


def find_learning(paths: Iterable[Path]) -> list[Learning]:
    """The runs in some folders, at any depth, that have a metrics.jsonl, by setting, method and what was chosen."""
    files = {file.resolve(): file for path in paths if path.is_dir() for file in path.rglob(METRICS)}
    recipes: dict[tuple[str, str, str], dict[int, Series]] = {}
    for file in sorted(files.values()):
        for series in read_metrics(file):
            row = Row((Card(file, series.run),))
            recipes.setdefault((row.setting, row.method, row.recipe), {}).setdefault(series.run["seed"], series)
    rows = [Row(tuple(Card(one.path, one.run) for one in runs.values())) for runs in recipes.values()]
    learning = [
        Learning(row.setting, label, tuple(runs.values()))
        for row, label, runs in zip(rows, labels(rows), recipes.values(), strict=True)
    ]
    return sorted(learning, key=lambda one: (one.setting, one.label))


def save_curves(learning: Sequence[Learning], path: Path) -> None:
    """A line of panels a setting, and a legend: means over seeds, with a band of one standard error."""
    from matplotlib.figure import Figure

    settings: dict[str, list[Learning]] = {}
    for one in sorted(learning, key=lambda one: one.setting):
        settings.setdefault(one.setting, []).append(one)
    heights = [max(3.6, 0.21 * (len(some(len(own))) + 2)) for own in settings.values()]
    figure = Figure(figsize=(21.0, sum(heights)), layout="constrained")
    lines = figure.subplots(len(settings), len(PANELS) + 1, squeeze=False, height_ratios=heights)
    for (setting, own), line in zip(settings.items(), lines, strict=True):
        *panels, beside = line
        _panels(own, setting, panels)
        _legend(own, beside)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _panels(learning: Sequence[Learning], setting: str, panels: Sequence[Axes]) -> None:
    for axes, (title, (metrics, scale)) in zip(panels, PANELS.items(), strict=True):
        for one, color in zip(learning, colors(len(learning)), strict=True):
            for metric in metrics:
                _draw(axes, one.curve(metric), color, HELD_OUT if metric.startswith("held_out/") else {})
        axes.set(title=f"{title}, setting {setting}", xlabel="iteration")
        if axes.has_data():
            axes.set_yscale(scale)
        axes.grid(alpha=0.25, linewidth=0.5)
        axes.xaxis.set_major_formatter(lambda iteration, _: f"{iteration:,.0f}")
        if len(metrics) > 1:
            axes.plot([], [], color="gray", label="training")
            axes.plot([], [], color="gray", label="held-out audit", **HELD_OUT)
            axes.legend(fontsize="small")


def _legend(learning: Sequence[Learning], axes: Axes) -> None:
    """In a place of its own, where it hides nothing."""
    shades, named = colors(len(learning)), some(len(learning))
    for k in named:
        seeds = f" ({len(learning[k].runs)} seeds)" if len(learning[k].runs) > 1 else ""
        axes.plot([], [], color=shades[k], label=f"{learning[k].label}{seeds}")
    title = f"{len(named)} of {len(learning)}" if len(named) < len(learning) else None
    axes.set_axis_off()
    axes.legend(title=title, fontsize="small", loc="upper left", borderaxespad=0.0)


def _draw(axes: Axes, points: Sequence[Point], color: Any, style: dict[str, Any]) -> None:
    if not points:
        return
    iterations, means, errors = zip(*points, strict=True)
    axes.plot(iterations, means, color=color, linewidth=1.2, **style)
    if any(errors):
        low = [mean - error for mean, error in zip(means, errors, strict=True)]
        high = [mean + error for mean, error in zip(means, errors, strict=True)]
        axes.fill_between(iterations, low, high, color=color, alpha=0.2, linewidth=0)
