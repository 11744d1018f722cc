"""The attack beside the literature's search, on the same instances of trained networks, in one run.

python -m benchmarks.audit outputs/a outputs/b [--instances 30] [--profiles 300] [--tier strong]

For each run folder: `--tier` searches `--profiles` fresh profiles (the pool needs some), 1000 starts x 1000 Adam steps
search the first `--instances` instances of them; on these, the mean regret that each found, the share of the
literature's that the attack found, and CPU seconds an instance. One thread, unless OMP_NUM_THREADS says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from truthful import checkpoints
from truthful.app import build_trained
from truthful.auditing.find import find_misreports
from truthful.auditing.journal import Journal
from truthful.auditing.tiers import TIERS
from truthful.results import CHECKPOINT, provenance, write_json
from truthful.streams import Stream, generator

SEED = 20
"""Of the profiles: no run's training or audit seed."""


def compare(run: Path, instances: int, profiles: int, tier: str) -> dict[str, Any]:
    """Both searches on the network of one run folder."""
    checkpoint = checkpoints.load(run / CHECKPOINT)
    setting, mechanism = build_trained(checkpoint)
    values = setting.sample(profiles, generator(SEED, Stream.AUDIT))
    few = -(-instances // setting.n_bidders)
    row: dict[str, Any] = {"run": run.name, "setting": checkpoint["run"]["choices"]["setting"]}
    gains = {}
    for name, part in ((tier, values), ("paper", values[:few])):
        began, attack = time.process_time(), TIERS[name].attack(setting.n_items)
        found = find_misreports(mechanism, setting, attack, part, [1, 2, 3], Journal(None, ""), lambda *_: None)
        seconds = (time.process_time() - began) / found.gain.numel()
        gains[name] = found.gain[:few]
        row |= {
            f"{name}_regret": float(gains[name].mean()),
            f"{name}_max": float(gains[name].max()),
            f"{name}_cpu_seconds": seconds,
            f"{name}_forward_passes": found.forward_passes,
        }
    missed = (gains["paper"] - gains[tier]).clamp_min(0)
    return row | {
        "instances": gains["paper"].numel(),
        "share": row[f"{tier}_regret"] / row["paper_regret"],
        "share_of_instances_missed_by_1e-5": float((missed > 1e-5).double().mean()),
        "worst_miss": float(missed.max()),
        "cpu_ratio": row["paper_cpu_seconds"] / row[f"{tier}_cpu_seconds"],
    }


def main() -> None:
    """Compare, print a table, write a card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--instances", type=int, default=30)
    parser.add_argument("--profiles", type=int, default=300)
    parser.add_argument("--tier", default="strong", choices=[name for name in TIERS if name != "paper"])
    parser.add_argument("--card", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    print(f"{'run':16} {options.tier:>10} {'paper':>10} {'share':>9} {'worst miss':>11} {'CPU ratio':>9}", flush=True)
    rows = []
    for run in options.runs:
        row = compare(run, options.instances, options.profiles, options.tier)
        rows.append(row)
        print(
            f"{row['run']:16} {row[f'{options.tier}_regret']:10.6f} {row['paper_regret']:10.6f} {row['share']:9.5f} "
            f"{row['worst_miss']:11.2e} {row['cpu_ratio']:9.0f}",
            flush=True,
        )
        if options.card is not None:
            write_json(options.card, {**provenance(), "rows": rows})
    print(json.dumps(rows[-1], indent=2))


if __name__ == "__main__":
    main()
