"""Pictures of a trained auction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from truthful.mechanisms import Mechanism
from truthful.settings import Setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESOLUTION = 101


def can_show_allocation(setting: Setting) -> bool:
    """Whether `save_allocation` has a picture for this setting: two items, one or two bidders."""
    return setting.n_items == 2 and setting.n_bidders <= 2


@torch.no_grad()
def save_allocation(mechanism: Mechanism, setting: Setting, path: Path) -> None:
    """Heat maps of bidder 1's chance of each item over his two values.

    With a second bidder, one row of maps for each of three of his values: a quarter, a half and three quarters of
    the way from his lowest to his highest value, the same for both items.
    """
    from matplotlib.figure import Figure

    low, high = setting.low, setting.high
    device = next((parameter.device for parameter in mechanism.parameters()), torch.device("cpu"))
    axes_values = [torch.linspace(float(low[0, j]), float(high[0, j]), RESOLUTION) for j in range(2)]
    own = torch.stack(torch.meshgrid(*axes_values, indexing="ij"), -1).unsqueeze(-2)
    shares = [0.25, 0.5, 0.75] if setting.n_bidders == 2 else [None]

    figure = Figure(figsize=(8, 3.4 * len(shares)), layout="constrained")
    grid = figure.subplots(len(shares), 2, squeeze=False)
    for row, share in enumerate(shares):
        bids = own
        title = "item {item}"
        if share is not None:
            rival = (low[1] + share * (high[1] - low[1])).float()
            bids = torch.cat([own, rival.expand(RESOLUTION, RESOLUTION, 1, 2)], -2)
            title += f", bidder 2 at ({float(rival[0]):g}, {float(rival[1]):g})"
        chance = mechanism(bids.to(device)).allocation[..., 0, :].cpu()
        for item in range(2):
            axes = grid[row, item]
            image = axes.imshow(
                chance[..., item].T.numpy(),
                origin="lower",
                extent=(float(low[0, 0]), float(high[0, 0]), float(low[0, 1]), float(high[0, 1])),
                aspect="auto",
                vmin=0,
                vmax=1,
                cmap="viridis",
            )
            axes.set(title=title.format(item=item + 1), xlabel="value of item 1", ylabel="value of item 2")
    figure.colorbar(image, ax=grid, label="probability that bidder 1 gets the item")
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture, on machines without a display, too."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
