"""What share of a training iteration is spent outside the mathematics (Lightning, logging, bar, checkpoints)?

python -m benchmarks.overhead [setting] [regret] [iterations] [engine]

The time outside the mathematics does not depend on the size of the network, so it is measured where it shows: on a
network of width 1 and batches of 2, training as `train.py` does it (CSV log, progress lines, checkpoints, no audits)
alternates with a bare loop over the same mathematics. Its share is relative to the bare loop of the real
network in the same run. Medians over rounds. Prints the process's peak resident memory, too.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from rich.console import Console

from train import CONF, build_module, build_trainer, quieten_lightning
from truthful.app import Run, plain
from truthful.app.runs import register_resolvers
from truthful.engine import ENGINES, Eager, Engine
from truthful.iteration import Iteration
from truthful.logging import RunInfo, csv_logger
from truthful.results import provenance
from truthful.streams import Stream, generator
from truthful.training import AuctionModule

ROUNDS = 5
QUIET = Console(quiet=True)


def bare(module: AuctionModule, iterations: int, engine: Engine) -> float:
    """Seconds an iteration of the mathematics alone."""
    parts = (module.mechanism, module.setting, module.mode, module.dual, module.configure_optimizers())
    steps = Iteration(*parts, None, engine, fuse=not isinstance(engine, Eager))
    controls = steps.controls([1e-3], [1e-2], 0)[0]
    starts = generator(module.seed, Stream.START)

    def iterate(iteration: int) -> None:
        steps.step(*module.data(iteration), starts, controls, 1e-3, 1)

    iterate(0)
    start = time.perf_counter()
    for iteration in range(iterations):
        iterate(iteration)
    return (time.perf_counter() - start) / iterations


def trained(config: dict[str, Any], engine: Engine) -> float:
    """Seconds an iteration of training, everything included but audits."""
    module = build_module(config, QUIET)
    module.engine = engine
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), config, {}, "", False, "")
        trainer = build_trainer(run, module, QUIET, provenance())
        trainer.loggers = [csv_logger(RunInfo(run.folder, "benchmark", "benchmark", "train", [], None, {}))]
        trainer.fit(module)
    return sum(module.iteration_seconds) / len(module.iteration_seconds)


def composed(*overrides: str) -> dict[str, Any]:
    """A configuration without periodic audits."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose("config", overrides=[*overrides, "trainer.audit_every=0"]))


def main(setting: str = "a", regret: str = "local", iterations: str = "3000", engine: str = "compiled") -> None:
    """Print the comparison."""
    quieten_lightning()
    choices = (f"setting={setting}", f"regret={regret}", f"iterations={iterations}")
    real, tiny = composed(*choices), composed(*choices, "mechanism.width=1", "batch=2")
    outside, mathematics = [], []
    for _ in range(ROUNDS):
        ready = ENGINES[engine]
        outside.append(trained(tiny, ready()) - bare(build_module(tiny, QUIET), tiny["iterations"], ready()))
        mathematics.append(bare(build_module(real, QUIET), 500, ready()))
    extra, core = statistics.median(outside), statistics.median(mathematics)
    print(f"mathematics {core * 1e3:.3f} ms/iteration, outside it {extra * 1e3:.3f} ms: {extra / (core + extra):.1%}")
    print(f"peak resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
