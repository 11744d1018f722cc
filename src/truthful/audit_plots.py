"""Pictures of an audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from truthful.auditing import AuditReport
from truthful.mechanisms import Mechanism
from truthful.plots import can_show_allocation, in_the_plane, save_allocation, save_figure
from truthful.settings import Setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 2000
"""Profiles in a map of regret."""
ARROWS = 30
"""Largest gains whose misreports a map points to."""


def save_pictures(report: AuditReport, mechanism: Mechanism, setting: Setting, folder: Path) -> dict[str, Path]:
    """Save every picture that the audit has, and the allocation where it can be shown; their paths by name."""
    pictures = {"regret_tail": _tail, "regret_found": _found}
    if in_the_plane(setting):
        pictures["regret_map"] = _map
    paths = {}
    for name, draw in pictures.items():
        paths[name] = folder / f"{name}.png"
        save_figure(draw(report, setting), paths[name])
    if can_show_allocation(setting):
        paths["allocation"] = folder / "allocation.png"
        save_allocation(mechanism, setting, paths["allocation"])
    return paths


def _tail(report: AuditReport, setting: Setting) -> Figure:
    """Left: histogram of gains. Right: the share of instances above a regret, down to the largest."""
    figure, (left, right) = _figure(9.0, 3.6, 2)
    gain = report.instances.gain.cpu()
    bins = torch.linspace(0, max(report.regret_max, 1e-9), 41).tolist()
    for bidder in range(setting.n_bidders):
        left.hist(gain[:, bidder].tolist(), bins=bins, histtype="step", label=f"bidder {bidder + 1}")
    left.set(yscale="log", xlabel="regret found", ylabel="profiles")
    left.legend()
    ranked = gain.flatten().sort(descending=True).values
    share = torch.arange(1, len(ranked) + 1) / len(ranked)
    positive = ranked > 1e-7
    right.plot(ranked[positive].tolist(), share[positive].tolist(), color="black")
    marks = (("mean", report.regret), ("95 %", report.regret_p95), ("99 %", report.regret_p99))
    for k, (name, mark) in enumerate((*marks, ("max", report.regret_max))):
        if mark > 1e-7:
            right.axvline(mark, color=f"C{k}", linewidth=1, label=f"{name} {mark:.2g}")
    if bool(positive.any()):
        right.set(xscale="log", yscale="log")
        right.legend()
    right.set(xlabel="regret found", ylabel="share of instances with more")
    figure.suptitle(f"audit={report.tier}, {report.samples} profiles: lower bounds")
    return figure


def _map(report: AuditReport, setting: Setting) -> Figure:
    """Regret over a bidder's own two values, whatever the others', with arrows from values to best misreports."""
    figure, panels = _figure(4.6 * setting.n_bidders, 4.2, setting.n_bidders)
    audited = report.instances
    values, misreport, gain = (tensor[:SHOWN].cpu() for tensor in (audited.values, audited.misreport, audited.gain))
    for bidder, axes in enumerate(panels):
        order = gain[:, bidder].argsort()  # the largest on top
        own, told, size = values[order, bidder], misreport[order, bidder], gain[order, bidder]
        points = axes.scatter(*own.T.tolist(), c=size.tolist(), s=8, cmap="viridis", vmin=0)
        top = slice(-ARROWS, None)
        move = (told - own)[top].T.tolist()
        axes.quiver(
            *own[top].T.tolist(), *move, angles="xy", scale_units="xy", scale=1, width=0.004, color="red", alpha=0.5
        )
        low, high = setting.low[bidder].tolist(), setting.high[bidder].tolist()
        axes.set(
            title=f"bidder {bidder + 1}",
            xlabel="value of item 1",
            ylabel="value of item 2",
            xlim=(low[0], high[0]),
            ylim=(low[1], high[1]),
        )
        figure.colorbar(points, ax=axes, label="regret found")
    figure.suptitle(f"the {ARROWS} largest gains of a bidder, with arrows to the misreports")
    return figure


def _found(report: AuditReport, setting: Setting) -> Figure:
    """Mean regret found against forward passes spent."""
    figure, (axes,) = _figure(6.0, 3.6, 1)
    spent = [stage.forward_passes for stage in report.stages]
    axes.plot(spent, [stage.regret for stage in report.stages], color="black", linewidth=1)
    for stage in report.stages:
        axes.plot([stage.forward_passes], [stage.regret], "o", label=f"{stage.name}: {stage.regret:.4g}")
    axes.legend(title="after")
    axes.set(xscale="log", xlabel="forward passes an instance", ylabel="mean regret found", ylim=(0, None))
    figure.suptitle(f"audit={report.tier}")
    return figure


def _figure(width: float, height: float, panels: int) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])
