"""What the searches of regret modes find in a trained auction that no longer changes, visit by visit.

python -m benchmarks.searches outputs/<run> [--modes probing climbing] [--profiles 500] [--visits 20] [--card card.json]

Every mode visits the same fresh profiles and keeps what it keeps. For each visit: the mean over profiles and bidders of
what its misreports gain, and seconds of the searches, not compiled; beside it what `strong` finds on other profiles. A
mode that finds more in as many evaluations is harder to fool. In training the auction changes between two visits of a
profile. A curriculum is its first mode here.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import truthful
from benchmarks.modes import MODES
from train import CONF
from truthful import checkpoints
from truthful.app import build_trained
from truthful.app.runs import register_resolvers
from truthful.auction import deviation_utility, utility
from truthful.mechanisms import Mechanism
from truthful.regret import RegretMode
from truthful.regret.ascent import utility_and_gradient
from truthful.results import CHECKPOINT, provenance, write_json
from truthful.settings import Setting
from truthful.streams import Stream

SEED = 20
"""Of the profiles: no run's training or audit seed."""


def visits(
    mode: RegretMode, mechanism: Mechanism, setting: Setting, sample: torch.Tensor, count: int
) -> tuple[list[float], float]:
    """Mean gain of each visit, and CPU seconds of all searches."""
    generator = torch.Generator().manual_seed(SEED + 1)
    mode.prepare(setting, sample, generator)
    rows = slice(0, len(sample))
    found, seconds = [], 0.0
    for _ in range(count):
        start = time.process_time()
        values = sample.clone().requires_grad_(mode.starts_at_truth)
        truthful_outcome = mechanism(values)
        begun = mode.begin(setting, sample, rows, generator)
        misreport = mode.find(mechanism, setting, values, begun, None if mode.staged else truthful_outcome).detach()
        seconds += time.process_time() - start
        with torch.no_grad():
            gain = deviation_utility(mechanism, sample, misreport) - utility(sample, truthful_outcome)
        found.append(float(gain.relu().mean()))
        if mode.follows:
            _, slope = utility_and_gradient(mechanism, sample, misreport)
            slope = torch.where((gain > 0).unsqueeze(-1), slope, 0.0)  # that of the regret
            misreport = mode.follow(setting, begun, misreport, slope)
        mode.store(rows, misreport)
    return found, seconds


def main() -> None:
    """Measure, print, write the card."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.searches", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", type=Path)
    parser.add_argument("--modes", nargs="+", default=["probing", "climbing"], choices=MODES)
    parser.add_argument("--profiles", type=int, default=500)
    parser.add_argument("--visits", type=int, default=20)
    parser.add_argument("--card", type=Path, help="write the numbers here")
    options = parser.parse_args()
    register_resolvers()
    checkpoint = checkpoints.load(options.run / CHECKPOINT)
    setting, mechanism = build_trained(checkpoint)
    unseen = setting.part(Stream.HELD_OUT)
    sample = unseen.sample(unseen.at_most(options.profiles), torch.Generator().manual_seed(SEED))
    card: dict[str, Any] = {"run": checkpoint["run"]["origin"]["command"], **provenance(), "modes": {}}
    for name in options.modes:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            node = compose("config", overrides=[f"regret={name}"]).regret
        found, seconds = visits(instantiate(node).at(0.0), mechanism, setting, sample, options.visits)
        card["modes"][name] = {"regret": found, "cpu_seconds": seconds}
        shown = " ".join(f"{regret:.5f}" for regret in found[:: max(1, options.visits // 5)])
        print(f"{name:18s} {shown}, last {found[-1]:.5f}, {seconds:.1f} s of CPU", flush=True)
    strong = truthful.audit(mechanism, setting, "strong", min(options.profiles, 200), SEED)
    card["strong"] = {"regret": strong.regret, "standard_error": strong.regret_se, "profiles": strong.samples}
    print(f"strong             {strong.regret:.5f} ± {strong.regret_se:.5f} on {strong.samples} of other profiles")
    if options.card:
        write_json(options.card, card)


if __name__ == "__main__":
    main()
