"""What do jobs side by side save? Two runs one after the other, and two at once, with one thread each; with two.

python -m benchmarks.sweeps [iterations] [--out card.json]

Every row is one command, `python train.py -m seed=0,1 ...`, alone on the machine: wall seconds of the whole command
(importing torch, compiling from the cache, auditing), and of training alone, from the first job's to the last job's
end. Needs hydra-joblib-launcher.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from truthful.results import provenance, read_json, write_json

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
JOBS = ("setting=a", "regret=probing", "engine=compiled", "logger=none", "trainer.audit_every=0")
AT_ONCE = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


def sweep(folder: Path, threads: int, *overrides: str) -> dict[str, float]:
    """Seconds of a sweep of two seeds: of the command, and of training."""
    command = [sys.executable, str(TRAIN), "-m", "seed=0,1", *JOBS, *overrides]
    start = time.perf_counter()
    subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    wall = time.perf_counter() - start
    seconds = [read_json(path)["train"]["seconds"] for path in folder.rglob("result.json")]
    return {"wall": wall, "training": max(seconds) if AT_ONCE[0] in overrides else sum(seconds)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeps", description=__doc__)
    parser.add_argument("iterations", nargs="?", type=int, default=20000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    cases = {
        "one after the other, 1 thread": (1, ()),
        "two at once, 1 thread each": (1, AT_ONCE),
        "one after the other, 2 threads": (2, ()),
    }
    for threads in (1, 2):  # the compiler's cache
        with tempfile.TemporaryDirectory() as folder:
            sweep(Path(folder), threads, "iterations=100")
    for name, (threads, overrides) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = sweep(Path(folder), threads, f"iterations={options.iterations}", *overrides)
        print(f"{name:32} {rows[name]['wall']:6.1f} s, of which training {rows[name]['training']:6.1f}")
    first, at_once, threaded = rows.values()
    throughput = {
        f"{what}, two at once over {name}": other[what] / at_once[what]
        for what in ("wall", "training")
        for name, other in (("one after the other", first), ("two threads", threaded))
    }
    for name, ratio in throughput.items():
        print(f"{name}: {ratio:.2f}")
    card: dict[str, Any] = {"iterations": options.iterations, "seconds": rows, "throughput": throughput, **provenance()}
    if options.out:
        write_json(options.out, card)


if __name__ == "__main__":
    main()
