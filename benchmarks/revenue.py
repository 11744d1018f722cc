"""Revenue of trained auctions under truthful bids, on a million fresh profiles: ten times as precise as an audit's.

python -m benchmarks.revenue outputs/<run> outputs/<other> [--card revenue.json]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from truthful import checkpoints
from truthful.app import build_trained, shown
from truthful.auction import revenue
from truthful.results import CHECKPOINT, provenance, write_json
from truthful.streams import Stream, generator

CHUNK, CHUNKS = 20_000, 50
SEED = 1
"""Of the audits of `evaluate.py`; nothing is tuned on it."""


@torch.no_grad()
def measure(run: Path) -> dict[str, float]:
    """Mean revenue and its standard error."""
    setting, mechanism = build_trained(checkpoints.load(run / CHECKPOINT))
    chunks = [
        revenue(mechanism(setting.sample(CHUNK, generator(SEED, Stream.AUDIT, k + 1)))).double() for k in range(CHUNKS)
    ]
    earned = torch.cat(chunks)
    return {"revenue": float(earned.mean()), "revenue_se": float(earned.std()) / len(earned) ** 0.5}


def main() -> None:
    """Print one line a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--card", type=Path)
    options = parser.parse_args()
    card: dict[str, Any] = {**provenance(), "profiles": CHUNK * CHUNKS, "seed": SEED, "runs": {}}
    for run in options.runs:
        found = card["runs"][str(shown(run.absolute()))] = measure(run)
        print(f"{run}: {found['revenue']:.4f} ± {found['revenue_se']:.4f}", flush=True)
    if options.card:
        write_json(options.card, card)


if __name__ == "__main__":
    main()
