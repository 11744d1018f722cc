"""How long an iteration of one training takes beside another's, as `train.py` builds them.

python -m benchmarks.modes                                            every regret mode at (a), compiled
python -m benchmarks.modes --setting a b c --run regret=standard regret=probing --card modes.json
python -m benchmarks.modes --run regret=standard "regret=probing optimizer=adam"
python -m benchmarks.modes --run mechanism=regretnet mechanism=amenunet   also of mechanisms
python -m benchmarks.modes --engine cuda_graph --device cuda         on a GPU

All trainings alternate in one run, round by round; a ratio to the first is the median over rounds of the ratio within a
round, on one thread unless OMP_NUM_THREADS says otherwise. A curriculum is timed at its beginning. Every training on
a fixed sample has one of 12,800.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console

from benchmarks.step import synchronise
from train import CONF, build_module
from truthful.app import plain
from truthful.app.runs import register_resolvers
from truthful.engine import ENGINES
from truthful.results import provenance, write_json
from truthful.training import AuctionModule

MODES = sorted({path.stem for path in (CONF / "regret").glob("*.yaml")} - {"none"})


def prepared(overrides: list[str], engine: str, device: str) -> AuctionModule:
    """A training, ready for its first iteration."""
    config = plain(compose("config", overrides=[*overrides, "iterations=100000000"]))
    if "samples" in config["data"]:
        config["data"]["samples"] = 12800
    module = build_module(config, Console(quiet=True)).to(device)
    module.engine = ENGINES[engine]()
    module.settle()
    module.prepare()
    return module


def run(module: AuctionModule, iterations: int) -> float:
    """Seconds an iteration."""
    synchronise(module.history.device.type)
    start = time.perf_counter()
    for first in range(0, iterations, module.log_every):
        module.run(module.iteration, module.iteration + min(module.log_every, iterations - first))
    synchronise(module.history.device.type)
    return (time.perf_counter() - start) / iterations


def main() -> None:
    """Measure, print, write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", nargs="+", default=["a"])
    default = ["regret=standard", *(f"regret={mode}" for mode in MODES if mode != "standard")]
    parser.add_argument("--run", nargs="+", default=default, help="overrides of each training, separated by spaces")
    parser.add_argument("--engine", default="compiled", choices=ENGINES)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each training in each round")
    parser.add_argument("--card", type=Path, help="write the numbers here")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # as a run has
    register_resolvers()
    card: dict[str, Any] = {**provenance(), "cases": {}}
    how = (options.engine, options.device)
    for setting in options.setting:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            modules = {name: prepared([f"setting={setting}", *name.split()], *how) for name in options.run}
        repeats = {name: max(1, int(options.seconds / run(module, 5))) for name, module in modules.items()}
        times: dict[str, list[float]] = {name: [] for name in modules}
        for _ in range(options.rounds):
            for name, module in modules.items():
                times[name].append(run(module, repeats[name]))
        first = times[options.run[0]]
        for name, own in times.items():
            ratio = statistics.median(a / b for a, b in zip(first, own, strict=True))
            milliseconds = statistics.median(own) * 1e3
            card["cases"][f"{setting} {name}"] = {"milliseconds": milliseconds, f"{options.run[0]} takes": ratio}
            print(f"{setting} {name:40s} {milliseconds:8.3f} ms  {options.run[0]} takes {ratio:5.2f} times as long")
        if options.card:
            write_json(options.card, card)


if __name__ == "__main__":
    main()
