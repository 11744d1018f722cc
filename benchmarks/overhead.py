"""What share of a training iteration is spent outside the mathematics (Lightning, logging, bar, checkpoints)?

python -m benchmarks.overhead [setting] [regret] [iterations]

Alternates training as `train.py` does it (CSV log, progress lines, checkpoints, no audits) with a bare loop over the
same mathematics, and prints the median over rounds and the process's peak resident memory.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from hydra import compose, initialize_config_dir
from rich.console import Console

from train import CONF, build_module, build_trainer
from truthful.app import Run, plain
from truthful.app.runs import register_resolvers
from truthful.auction import revenue
from truthful.logging import RunInfo, csv_logger
from truthful.results import provenance
from truthful.streams import Stream, generator
from truthful.training import AuctionModule

ROUNDS = 3


def bare(module: AuctionModule, iterations: int) -> float:
    """Seconds an iteration of the mathematics alone."""
    optimizer = module.configure_optimizers()
    start = time.perf_counter()
    for iteration in range(iterations):
        values, rows = module.data(iteration)
        truthful = module.mechanism(values)
        mean_revenue = revenue(truthful).mean()
        starts = generator(module.seed, Stream.START, iteration + 1)
        regret = module.regret(module.mechanism, module.setting, values, truthful, rows, starts)
        optimizer.zero_grad()
        (module.dual(regret, mean_revenue) - mean_revenue).backward()
        optimizer.step()
        module.dual.update(regret.detach(), mean_revenue.detach(), module.rmax(iteration / iterations))
    return (time.perf_counter() - start) / iterations


def trained(module: AuctionModule, run: Run, console: Console) -> float:
    """Seconds an iteration of training, all included but audits."""
    info = RunInfo(run.folder, "benchmark", "benchmark", [], None, {})
    trainer = build_trainer(run, module, console, provenance())
    trainer.loggers = [csv_logger(info)]
    trainer.fit(module)
    return module.clock.seconds / module.iterations


def main(setting: str = "a", regret: str = "local", iterations: str = "1000") -> None:
    """Print the comparison."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [f"setting={setting}", f"regret={regret}", f"iterations={iterations}"]
        config = plain(compose("config", overrides=[*overrides, "trainer.audit_every=0"]))
    console = Console(quiet=True)
    pairs = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            run = Run(Path(folder), config, {}, "", False, "")
            whole = trained(build_module(config, console), run, console)
        mathematics = bare(build_module(config, console), int(iterations))
        pairs.append((whole, mathematics))
        print(f"training {whole * 1e3:.3f} ms/iteration, mathematics alone {mathematics * 1e3:.3f} ms")
    share = statistics.median(1 - mathematics / whole for whole, mathematics in pairs)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"outside the mathematics: {share:.1%} (median of {ROUNDS}); peak resident memory {memory:.0f} MiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
