"""Attack, certificate and integer program on the same instances of small sparsemax networks.

python -m benchmarks.milp outputs/run [outputs/another] [--profiles 25] [--out results/milp.json]

For each run of mechanism=sparsemax_regretnet: what `strong` finds for every bidder of fresh profiles; a certificate
from there; the exact worst misreport by HiGHS. Attack <= exact <= certificate, up to the solver's 1e-6.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import truthful
from truthful import checkpoints
from truthful.app import build_trained
from truthful.auditing.certificate import certify
from truthful.auditing.integer_program import worst_misreport
from truthful.mechanisms import Mechanism
from truthful.results import CHECKPOINT, provenance, write_json
from truthful.settings import Setting

SEED = 20
"""Of the profiles: no run's training or audit seed."""
AGREE = 1e-4
"""Attack and program agree up to this."""
MAX_BOXES = 20_000
SECONDS = 120.0
"""After which the solver gives up an instance."""


def compare(mechanism: Mechanism, setting: Setting, profiles: int) -> dict[str, Any]:
    """Regret of every instance by the three, and CPU seconds of each."""
    clock = [time.process_time()]
    audited = truthful.audit(mechanism, setting, "strong", profiles, SEED).instances
    clock.append(time.process_time())
    n = setting.n_bidders
    values, bidder = audited.values.repeat_interleave(n, 0), torch.arange(n).repeat(profiles)
    proven = certify(mechanism, setting, values, bidder, audited.misreport.flatten(0, 1), AGREE, MAX_BOXES)
    clock.append(time.process_time())
    exact = [worst_misreport(mechanism, setting, v, int(i), SECONDS) for v, i in zip(values, bidder, strict=True)]
    clock.append(time.process_time())
    attack = audited.gain.flatten()
    regret, bound = (torch.tensor([getattr(found, name) for found in exact]) for name in ("regret", "bound"))
    return {
        "instances": len(exact),
        "mean_attack": float(attack.mean()),
        "mean_exact": float(regret.mean()),
        "mean_certificate": float(proven.upper.mean()),
        "max_exact": float(regret.max()),
        "solver_gap": float((bound - regret).max()),
        "attack_misses_at_most": float((regret - attack).max()),
        "attack_exceeds_at_most": float((attack - regret).max()),
        "disagree": int(((regret - attack).abs() > AGREE).sum()),
        "certificate_less_exact": [float((proven.upper - regret).min()), float((proven.upper - regret).max())],
        "closed": int(proven.closed.sum()),
        "cpu_seconds": dict(zip(("attack", "certificate", "exact"), torch.tensor(clock).diff().tolist(), strict=True)),
    }


def main() -> None:
    """Compare, print a line for each run, write the card."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.milp", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--profiles", type=int, default=25)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = {}
    for run in options.runs:
        checkpoint = checkpoints.load(run / CHECKPOINT)
        setting, mechanism = build_trained(checkpoint)
        row = compare(mechanism, setting, options.profiles)
        rows[run.name] = {"command": checkpoint["run"]["origin"]["command"], **row}
        low, high = row["certificate_less_exact"]
        print(
            f"{run.name}: {row['instances']} instances, mean regret attack {row['mean_attack']:.6f}, exact "
            f"{row['mean_exact']:.6f}, certificate {row['mean_certificate']:.6f}; the attack misses "
            f"{row['attack_misses_at_most']:.1e} at most, {row['disagree']} apart by more than {AGREE:g}; the "
            f"certificate is {low:.1e} to {high:.1e} above",
            flush=True,
        )
    if options.out:
        write_json(options.out, {"runs": rows, "seed": SEED, **provenance()})


if __name__ == "__main__":
    main()
