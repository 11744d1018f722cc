"""How many threads should one run have?

python -m benchmarks.threads [setting] [regret] [iterations]

Prints seconds an iteration of the mathematics for one and two threads, alternating, as a ratio to one thread.
"""

from __future__ import annotations

import statistics
import sys

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console

from benchmarks.overhead import ROUNDS, bare
from train import CONF, build_module
from truthful.app import plain
from truthful.app.runs import register_resolvers
from truthful.engine import Compiled


def main(setting: str = "a", regret: str = "local", iterations: str = "300") -> None:
    """Print the comparison."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(compose("config", overrides=[f"setting={setting}", f"regret={regret}"]))
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for threads, found in seconds.items():
            torch.set_num_threads(threads)
            found.append(bare(build_module(config, Console(quiet=True)), int(iterations), Compiled()))
    one, two = (statistics.median(found) for found in seconds.values())
    print(
        f"{setting}, {regret}: 1 thread {one * 1e3:.2f} ms/iteration, 2 threads {two * 1e3:.2f} ms, {two / one:.2f} x"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
