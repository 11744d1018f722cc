"""The attack beside an exhaustive grid, on trained networks with two items.

python -m benchmarks.grid outputs/a outputs/e [--profiles 200]

For each run folder: `strong` on fresh profiles; for the same instances the best report of a 201 x 201 grid over the
bidder's box, improved by 30 zooms of 9 x 9 reports round it, in float64. Prints the mean regret of both and the largest
amount by which either missed what the other found.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

import truthful
from truthful import checkpoints
from truthful.app import build_trained
from truthful.auditing.instances import Instances
from truthful.results import CHECKPOINT

SEED = 20
"""Of the profiles: no run's training or audit seed."""
POINTS = 201
ZOOMS = 30


def grid_gain(instances: Instances) -> Tensor:
    """The largest gain over the truth that the grid and its zooms find, for each instance."""
    line = torch.linspace(0, 1, POINTS, dtype=torch.float64)
    square, small = torch.cartesian_prod(line, line), torch.cartesian_prod(*[torch.linspace(-1, 1, 9).double()] * 2)
    truth = instances.utility(instances.everyone, instances.values)
    best, report = truth.clone(), instances.values.clone()
    for k in range(len(instances)):
        points = instances.low[k] + instances.width[k] * square
        top, place = instances.utility(torch.full((len(points),), k), points).max(0)
        if top > best[k]:
            best[k], report[k] = top, points[place]
    radius = 1 / (POINTS - 1)
    for _ in range(ZOOMS):
        every = instances.everyone.repeat_interleave(len(small))
        around = (report.unsqueeze(1) + radius * small * instances.width.unsqueeze(1)).flatten(0, 1)
        around = torch.maximum(torch.minimum(around, instances.high[every]), instances.low[every])
        top, place = instances.utility(every, around).view(len(instances), -1).max(1)
        chosen = around.view(len(instances), -1, 2)[instances.everyone, place]
        report = torch.where((top > best).unsqueeze(1), chosen, report)
        best, radius = torch.maximum(best, top), 0.6 * radius
    return best - truth


def main() -> None:
    """Compare, print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--profiles", type=int, default=200)
    options = parser.parse_args()
    for run in options.runs:
        setting, mechanism = build_trained(checkpoints.load(run / CHECKPOINT))
        audited = truthful.audit(mechanism, setting, "strong", options.profiles, SEED).instances
        n = setting.n_bidders
        bidder = torch.arange(n).repeat(options.profiles)
        profiles = audited.values.repeat_interleave(n, 0)
        grid = grid_gain(Instances(mechanism.double().requires_grad_(False), setting, profiles, bidder))
        apart = grid - audited.gain.flatten()
        print(
            f"{run.name}: mean regret strong {audited.gain.mean():.9f}, grid {grid.mean():.9f}; the attack misses "
            f"{apart.max():.1e} at most, the grid {-apart.min():.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
