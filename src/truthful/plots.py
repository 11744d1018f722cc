"""Pictures of a trained auction."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from truthful.mechanisms import Mechanism
from truthful.mechanisms.base import device_of
from truthful.settings import Setting
from truthful.settings.optimum import Menu
from truthful.settings.regions import box_corners, inner_edges, menu_regions
from truthful.shapes import Float

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESOLUTION = 200
"""Pixels of a map in each direction; each shows the allocation at its centre."""
COLOURS = "viridis"
MOST_OUTSIDE = 0.95
"""Share of the map without values from which on the support is taken to be finite."""
NEARLY_ALL, ROOM = 0.99, 1.25
"""A map ends at so many times this quantile, above the lowest value, if the support does not end before."""
LABELLED = 0.02
"""Share of the map from which on a region has room for a label."""


def can_show_allocation(setting: Setting) -> bool:
    """Whether `save_allocation` has a picture for this setting: values of two items alone, one or two bidders."""
    return in_the_plane(setting) and setting.n_bidders <= 2


def in_the_plane(setting: Setting) -> bool:
    """Whether a bidder's type is two values and nothing else."""
    return setting.n_items == 2 and not setting.budgeted and not setting.features


@torch.no_grad()
def save_allocation(mechanism: Mechanism, setting: Setting, path: Path) -> None:
    """Heat maps of bidder 1's chance of each item over his two values; hatched where no values lie.

    With one bidder and an optimum whose menu is known, a second row has the optimal maps, and both rows the boundaries
    of the optimal regions. With a second bidder, one row of maps for each of three of his values: a quarter, a half
    and three quarters of the way from his lowest to his highest value, the same for both items.
    """
    from matplotlib.cm import ScalarMappable

    low, high = setting.low, highest_shown(setting)
    optimum = setting.optimum if setting.n_bidders == 1 else None
    menu = None if optimum is None else optimum.menu
    shares = [0.25, 0.5, 0.75] if setting.n_bidders == 2 else [None]
    figure, rows = _figure(len(shares) + (menu is not None))
    for panels, share in zip(rows, shares, strict=False):
        profiles = _own_values(setting)
        title = "item {item}" if menu is None else "item {item}, this auction"
        if share is not None:
            rival = (low[1] + share * (high[1] - low[1])).float()
            profiles = torch.cat([profiles, rival.expand(RESOLUTION, RESOLUTION, 1, 2)], -2)
            title += f", bidder 2 at ({float(rival[0]):g}, {float(rival[1]):g})"
        chance = mechanism(profiles.to(device_of(mechanism))).allocation[..., 0, :].cpu()
        for item, axes in enumerate(panels):
            axes.imshow(
                chance[..., item].T.numpy(), origin="lower", extent=_extent(setting), vmin=0, vmax=1, cmap=COLOURS
            )
            axes.set_title(title.format(item=item + 1))
    if optimum is not None and menu is not None:
        _draw_optimum(rows, menu, setting)
        figure.suptitle(f"lines: the optimal regions ({optimum.source}, revenue {optimum.revenue:.6g})", fontsize=11)
    for axes in rows.flat:
        _hatch_outside(axes, setting)
        left, right, bottom, top = _extent(setting)
        axes.set(xlabel="value of item 1", ylabel="value of item 2", xlim=(left, right), ylim=(bottom, top))
        axes.set(aspect="auto", box_aspect=1)
    scale = ScalarMappable(cmap=COLOURS)
    scale.set_clim(0, 1)
    figure.colorbar(scale, ax=rows, label="probability that bidder 1 gets the item", aspect=15 * len(rows))
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture, on machines without a display, too."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw_optimum(rows: Any, menu: Menu, setting: Setting) -> None:
    """The optimal maps in the last row, with what each region gets for how much; boundaries of regions everywhere."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.patheffects import withStroke

    left, right, bottom, top = _extent(setting)
    support = box_corners((left, bottom), (right, top))
    regions = menu_regions(menu, support)
    entries = [*menu, ((0.0, 0.0), 0.0)]
    values = _own_values(setting).double()
    values = values[_distance(values, setting) < 1e-6]
    chances = torch.tensor([chance for chance, _ in entries], dtype=torch.float64)
    taken = (values @ chances.T - torch.tensor([price for _, price in entries])).argmax(-1).flatten()
    for item, axes in enumerate(rows[-1]):
        axes.set_title(f"item {item + 1}, optimal")
        colours = [colormaps[COLOURS](chance[item]) for chance, _ in entries]
        axes.add_collection(PolyCollection([region or [(left, bottom)] for region in regions], facecolors=colours))
        for k, (chance, price) in enumerate(entries):
            own = values[taken == k].flatten(1)
            if len(own) > LABELLED * len(values):
                ink = "black" if chance[item] > 0.6 else "white"
                axes.text(
                    *own.mean(0).tolist(), _label(chance, price), color=ink, fontsize=7.5, ha="center", va="center"
                )
    for axes in rows.flat:
        lines = LineCollection(inner_edges(regions, support), colors="white", linewidths=1.2, zorder=1.5)
        lines.set_path_effects([withStroke(linewidth=2.4, foreground="black")])
        axes.add_collection(lines)


def _label(chance: tuple[float, ...], price: float) -> str:
    if not any(chance):
        return "nothing"
    return f"({', '.join(map(_number, chance))})\nat {price:.4g}"


def _number(chance: float) -> str:
    """A simple fraction where it is one."""
    simple = Fraction(chance).limit_denominator(9)
    return str(simple) if abs(float(simple) - chance) < 1e-9 else f"{chance:.3g}"


def _own_values(setting: Setting) -> Float[Tensor, "k k 1 2"]:
    """Bidder 1's values at the centres of the pixels."""
    steps = (torch.arange(RESOLUTION) + 0.5) / RESOLUTION
    low, high = setting.low[0], highest_shown(setting)[0]
    values = [(low[j] + (high[j] - low[j]) * steps).float() for j in range(2)]
    return torch.stack(torch.meshgrid(*values, indexing="ij"), -1).unsqueeze(-2)


def _extent(setting: Setting) -> tuple[float, float, float, float]:
    (left, bottom), (right, top) = setting.low[0].tolist(), highest_shown(setting)[0].tolist()
    return left, right, bottom, top


def highest_shown(setting: Setting) -> Float[Tensor, "n m"]:
    """The largest values that are shown: of long tails, those up to a little beyond where nearly all values are."""
    if setting.laws is None:
        return setting.high
    nearly = torch.tensor(NEARLY_ALL, dtype=torch.float64)
    most = torch.stack([torch.stack([law.quantile(nearly) for law in row]) for row in setting.laws])
    return torch.minimum(setting.high, setting.low + ROOM * (most - setting.low))


def _figure(rows: int) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.7 * rows), layout="constrained")
    return figure, figure.subplots(rows, 2, squeeze=False)


def _hatch_outside(axes: Any, setting: Setting) -> None:
    """Cover where bidder 1's values cannot be; not for a finite support, of which nothing would be left to see."""
    left, right, bottom, top = _extent(setting)
    across, along = (
        torch.linspace(*ends, RESOLUTION + 1, dtype=torch.float64) for ends in ((left, right), (bottom, top))
    )
    values = torch.stack(torch.meshgrid(across, along, indexing="ij"), -1).unsqueeze(-2)
    distance = _distance(values, setting)
    outside = 1e-3 * min(right - left, top - bottom)
    if 0 < float((distance > outside).double().mean()) < MOST_OUTSIDE:
        levels = [outside, float(distance.max()) + outside]
        axes.contourf(across, along, distance.T, levels, colors="white", zorder=2)
        hatch = axes.contourf(across, along, distance.T, levels, colors="none", hatches=["///"], zorder=2)
        hatch.set_edgecolor("0.7")


def _distance(values: Float[Tensor, "*b 1 2"], setting: Setting) -> Float[Tensor, "*b"]:
    """How far bidder 1's values are from his support."""
    profiles = values.expand(*values.shape[:-2], setting.n_bidders, 2)
    distance: Tensor = (setting.project(profiles) - profiles)[..., 0, :].norm(dim=-1)
    return distance
