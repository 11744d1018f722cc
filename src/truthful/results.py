"""result.json: what a run or an evaluation says, and where it comes from."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

CHECKPOINT = Path("checkpoints") / "last.ckpt"
"""Where a run folder has its checkpoint ..."""
RESULT = "result.json"
"""... and its result."""
JOURNAL = "audit.partial"
"""Finished parts of an audit that was interrupted, in its folder."""

COMMAND = "TRUTHFUL_COMMAND"
"""In the environment of a sweep's jobs: what was typed to launch them."""

ORIGIN = ("commit", "command", "versions", "hardware", "threads")
"""Keys of `provenance`."""

VOLATILE = frozenset(
    {
        "engine",
        "logger",
        "tags",
        "group",
        "resume",
        "retry",
        "sweep",
        "recipe.note",
        "trainer.accelerator",
        "trainer.devices",
        "trainer.log_every",
        "trainer.checkpoint_every",
        "trainer.audit_every",
        "trainer.audit_samples",
        "trainer.exploitation",
        "trainer.progress",
    }
)
"""Keys of a configuration that cannot change a number of the result."""


def volatile_part(key: str) -> str | None:
    """The entry of VOLATILE that the dotted `key` is or lies under; None if it can change a number of the result."""
    parts = key.split(".")
    prefixes = (".".join(parts[:k]) for k in range(1, len(parts) + 1))
    return next((prefix for prefix in prefixes if prefix in VOLATILE), None)


def flatten(config: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict of dotted keys, without the volatile ones."""
    flat: dict[str, Any] = {}
    for name, entry in config.items():
        key = f"{prefix}{name}"
        if key == "trainer.accelerator":
            flat[key] = "cpu"  # in every hash since before it was volatile
        if volatile_part(key):
            continue
        if isinstance(entry, dict):
            flat |= flatten(entry, key + ".")
        else:
            flat[key] = float(entry) if type(entry) is int else entry  # 1 and 1.0 are the same number
    return flat


def config_hash(config: dict[str, Any]) -> str:
    """A hash of whatever can change the numbers: the resolved configuration without loggers, bar, tags, folder."""
    text = json.dumps(flatten(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recipe_hash(config: dict[str, Any]) -> str:
    """A hash of what is trained on what: runs that agree in it differ in nothing but their seeds and audits."""
    varying = ("seed", "population", "vary", "audit")
    return config_hash({key: entry for key, entry in config.items() if key not in varying})


def method_hash(config: dict[str, Any]) -> str:
    """`recipe_hash` but for the budget: runs that agree in it are one method at several budgets."""
    budgets = {"rmax": ("start", "end"), "recipe": ("rmax_start", "rmax_end")}
    rest = {
        group: {key: entry for key, entry in config.get(group, {}).items() if key not in keys}
        for group, keys in budgets.items()
    }
    return recipe_hash(config | rest)


def method_name(result: dict[str, Any]) -> str:
    """A RegretNet by its regret mode; another mechanism by its own name, and its regret mode if it needs one."""
    mechanism, mode = result.get("mechanism"), result.get("regret_mode")
    if mechanism in (None, "regretnet") or mode is None:
        return str(mode or mechanism)
    return str(mechanism) if mode == "none" else f"{mechanism} {mode}"


def file_digest(path: Path) -> str:
    """sha256 of a file's content. Raises ValueError if there is no such file."""
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}; paths are relative to the working directory, {Path.cwd()}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically: a reader sees the old one or the whole new one."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def train_summary(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The `train` part of a result, from a training checkpoint, which need not be of a finished run (`completed`).

    `revenue` and `regret_sum` are means over the last 1,000 iterations, on training batches and with the training
    search; `seconds` is wall time without audits, but for those that correct the budget, which are part of training
    (`calibration_seconds`); `compile_seconds` is the part of it before the first iteration; all of them of the whole
    `population` trained together. `seconds_per_iteration` is the median over logging intervals, without corrections.
    """
    state, clock = checkpoint["state_dict"], checkpoint["clock"]
    history = state["history"][: int(state["completed"])]
    revenue, regret_sum = history.mean(0).tolist()
    return {
        "completed": int(state["completed"]),
        "revenue": revenue,
        "regret_sum": regret_sum,
        "seconds": clock["seconds"],
        "compile_seconds": clock["compile_seconds"],
        "calibration_seconds": clock.get("calibration_seconds", 0.0),
        "engine": checkpoint["engine"]["name"],
        "threads": checkpoint["engine"]["threads"],
        "population": checkpoint["engine"]["population"],
        "devices": checkpoint["engine"].get("devices", 1),
        "device": checkpoint["engine"].get("device", "cpu"),
        "seconds_per_iteration": median(clock["iteration_seconds"]),
    }


def exploitation(audited: float, training: float) -> float | None:
    """How many times the sum of regret that training sees an audit finds; None where training sees none."""
    return audited / training if training > 0 else None


def discounted_revenue(revenue: float, regret_sum: float) -> float:
    """(√revenue − √regret_sum)², or 0 if regret is larger: one number by which auctions of unequal regrets compare.

    With one bidder a truthful auction earns that much: offer him all outcomes, their prices cut by the share
    d = √(regret_sum/revenue), and let him choose. He leaves the outcome that he had for one that is cheaper by at most
    his regret over d, as its smaller discount costs him more than that; so (1 − d)(revenue − regret_sum/d) is left, and
    this d is the best. With several bidders there are similar theorems, for Bayesian truthfulness, and Rahme, Jelassi
    and Weinberg (2021) compare auctions by this number. Regret that a search found is a lower bound: then it is no
    guarantee.
    """
    return max(0.0, math.sqrt(max(0.0, revenue)) - math.sqrt(regret_sum)) ** 2


WITHIN = 0.1
"""A budget on audited regret counts as met up to this share above it."""


def budget_summary(target: float | None, audit: dict[str, Any]) -> dict[str, Any] | None:
    """Whether an audit's (sum of regret)/revenue meets the R_max `target`; None where there is none or no ratio.

    `ci` is the 95 % interval of the ratio over profiles, as if the errors of regret and revenue were independent (they
    rise and fall together, so it is rather too wide); `within`: `ratio` is at most 10 % off; `met`: not above that.
    """
    ratio = audit["regret_ratio"]
    if target is None or ratio is None:
        return None
    shares = [audit[f"{name}_se"] / audit[name] if audit[name] else 0.0 for name in ("regret", "revenue")]
    error = 1.96 * ratio * math.hypot(*shares)
    return {
        "target": target,
        "ratio": ratio,
        "ci": [ratio - error, ratio + error],
        "within": abs(ratio / target - 1) <= WITHIN,
        "met": ratio <= (1 + WITHIN) * target,
    }


def provenance() -> dict[str, Any]:
    """Commit, command, versions, hardware and threads."""
    import torch

    packages = ("torch", "lightning", "hydra-core", "omegaconf", "wandb", "numpy")
    return {
        "commit": _commit(),
        "command": command_line(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "hardware": {
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "threads": torch.get_num_threads(),
    }


def command_line() -> str:
    """What was typed, as far as can be told; jobs of a sweep are told by it."""
    return os.environ.get(COMMAND) or " ".join(["python", _script(Path(sys.argv[0])), *sys.argv[1:]])


def _script(path: Path) -> str:
    """The script as it was probably typed: `python -m` makes it an absolute path."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """HEAD of the checkout that this file is in, marked -dirty if tracked files differ from it."""
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}-dirty" if changed else head


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
