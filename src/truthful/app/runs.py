"""Run folders: their names, what is in them, and whether a command may go on in one."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from truthful.app.building import pin_data, plain
from truthful.errors import UserError
from truthful.results import CHECKPOINT, RESULT, config_hash, flatten, volatile_part, write_text

LONGEST_NAME = 120
LOCK = ".lock"
"""In a run folder: held by the process that works there."""


def run_name(choices: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """A folder name built from the choices: the same command, the same folder; no timestamp.

    <experiment>, or <setting>_<regret>; then every other override that can change a number.
    """
    named = choices.get("experiment")
    shown = [str(named)] if named else [str(choices["setting"]), str(choices["regret"])]
    hidden = {"experiment"} if named else {"setting", "regret"}
    return _shortened([*shown, *sorted(_that_matter(overrides, hidden))])


def run_folder(resume: str | None, choices: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """Where a run lives: the folder that `resume` names, else outputs/<run name>.

    That of a W&B agent is in multirun/<sweep>/ and its name ends with the run's id there: an agent may try the same
    parameters twice.
    """
    if resume not in (None, "auto"):
        return resume
    name, sweep = run_name(choices, overrides), os.environ.get("WANDB_SWEEP_ID")
    return f"multirun/{sweep}/{name}_{os.environ.get('WANDB_RUN_ID')}" if sweep else f"outputs/{name}"


def sweep_name(choices: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """A folder name for a multirun: that of the sweep, or one from its grid."""
    named = choices.get("sweep")
    return str(named) if named else _shortened(_that_matter(overrides, set()))


def _that_matter(overrides: Sequence[str], hidden: Collection[str]) -> list[str]:
    """Those overrides that can change a number, but for the keys that are `hidden`."""
    kept = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key not in hidden and volatile_part(key) is None and not key.startswith("hydra"):
            kept.append(f"{key.replace('/', '.')}={value}")
    return kept


def evaluation_name(run: str | Sequence[str] | None, checkpoint: str | None, overrides: Sequence[str]) -> str:
    """A folder name for an evaluation: what is evaluated (a path but for outputs/), and every other override."""
    checkpoints = [checkpoint.removesuffix(str(CHECKPOINT)).rstrip("/")] if checkpoint else []
    runs = [run] if isinstance(run, str) else list(run or ())
    what = [str(shown(Path(one).absolute())).removeprefix("outputs/").strip("/") for one in runs + checkpoints]
    return _shortened([*what, *_that_matter(overrides, {"run", "checkpoint"})])


def _shortened(parts: Sequence[str]) -> str:
    """The parts joined to a file name of bounded length; what is cut off survives as a digest.

    Only characters that need no quotes on the command line: `resume=` and `run=` take these names.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", "_".join(parts)) or "default"
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}_{_digest('_'.join(parts))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def register_resolvers() -> None:
    """Make the names above available to the configuration."""
    OmegaConf.register_new_resolver("truthful.run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("truthful.run_folder", run_folder, replace=True)
    # cached, because Hydra hands the cache on to each job: all of a multirun share its folder
    OmegaConf.register_new_resolver("truthful.sweep_name", sweep_name, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("truthful.evaluation_name", evaluation_name, replace=True)


def multirun_name() -> str | None:
    """The folder name of the multirun that this job belongs to; None for a run of its own."""
    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None


def current_choices() -> dict[str, Any]:
    """The chosen option of each config group of the job that is running."""
    return plain(OmegaConf.create(HydraConfig.get().runtime.choices))


def override_pairs(overrides: Sequence[str]) -> dict[str, Any]:
    """Overrides as typed key/value pairs; a removed key has the value None."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return {override.key_or_group: override.value() for override in parsed}


@dataclass(frozen=True)
class Run:
    """A run folder and the configuration that belongs to it."""

    folder: Path
    config: dict[str, Any]
    choices: dict[str, Any]
    """Chosen option of each config group."""
    hash: str
    started: bool
    """Whether the folder has this run's configuration already."""
    identifier: str
    """A random name that every session of this run shares."""

    @property
    def shown_folder(self) -> Path:
        """The folder as a person types it."""
        return shown(self.folder)


def shown(path: Path) -> Path:
    """A path as a person types it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Work in a run folder that no other process works in. A job of a multirun waits for it, a single run does not.

    The workers of a sweep that was killed may live on for a while.

    Raises:
        UserError: another process is there.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise UserError(f"another process is at work in {shown(folder)}") from None
        sys.stdout.write(f"waiting for another process that is at work in {shown(folder)}\n")
        lock.acquire()
    try:
        yield
    finally:
        if [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
        lock.release()


def open_run(composed: DictConfig) -> Run:
    """Decide what belongs to the run folder: the composed configuration, or the one that is there."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    saved_config = folder / ".hydra" / "config.yaml"
    has_results = (folder / CHECKPOINT).exists() or (folder / RESULT).exists()
    if composed.resume == "auto" and has_results and not saved_config.exists():
        raise UserError(
            f"{shown(folder)} has results but no .hydra/config.yaml to continue from; choose another folder"
        )
    if composed.resume in (None, "auto"):
        pin_data(composed.setting, *composed.constraint.values())
    if composed.resume is None:
        if saved_config.exists() or has_results:
            raise UserError(
                f"{shown(folder)} already has a run in it: continue it with resume=auto, choose another folder with "
                "hydra.run.dir=..., or delete it"
            )
    elif composed.resume != "auto" and not saved_config.exists():
        raise UserError(f"there is no run to resume in {shown(folder)}: it has no .hydra/config.yaml")

    config, choices = composed, current_choices()
    if composed.resume is not None and saved_config.exists():
        saved = OmegaConf.load(saved_config)
        assert isinstance(saved, DictConfig)
        saved_choices = plain(OmegaConf.load(folder / ".hydra" / "hydra.yaml").hydra.runtime.choices)
        if composed.resume == "auto":
            compare(plain(saved), plain(composed), folder)
            config = composed
        else:
            config = with_overrides(saved, saved_choices, composed, folder)
        choices = saved_choices
    resolved = plain(config) | {"resume": None}
    identifier_file = folder / ".hydra" / "run_id"
    identifier = identifier_file.read_text() if identifier_file.exists() else uuid.uuid4().hex[:12]
    return Run(folder, resolved, choices, config_hash(resolved), saved_config.exists(), identifier)


def compare(saved: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Raise a UserError that names what a folder's configuration and the wanted one differ in."""
    old, new = flatten(saved), flatten(wanted)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise UserError(
                f"the run in {shown(folder)} has another configuration: {key} is {_typed(old.get(key))} there and "
                f"{_typed(new.get(key))} here"
            )


def _typed(entry: Any) -> str:
    """A value as a person types it."""
    return f"{entry:g}" if isinstance(entry, float) else repr(entry)


def with_overrides(saved: DictConfig, saved_choices: dict[str, Any], composed: DictConfig, folder: Path) -> DictConfig:
    """The saved configuration, with the logger, bar and tags that the command line asks for; all else must agree."""
    for key, value in override_pairs(HydraConfig.get().overrides.task).items():
        if key == "resume":
            continue
        if key == "hydra.run.dir":
            raise UserError("resume=<folder> names the run folder; leave out hydra.run.dir")
        if key.startswith("hydra"):
            continue
        if volatile_part(key) is not None:
            OmegaConf.update(saved, key, OmegaConf.select(composed, key), merge=False, force_add=True)
            continue
        there = saved_choices[key] if key in saved_choices else OmegaConf.select(saved, key)
        there = OmegaConf.to_container(there) if OmegaConf.is_config(there) else there
        if there != value:
            raise UserError(f"resume={shown(folder)} contradicts {key}={value}: the run there has {key}={there}")
    return saved


def save_configuration(run: Run, composed: DictConfig) -> None:
    """Write .hydra, as Hydra itself would; the folder then belongs to this run."""
    write_text(run.folder / ".hydra" / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": HydraConfig.get()})))
    overrides = OmegaConf.to_yaml(HydraConfig.get().overrides.task)
    write_text(run.folder / ".hydra" / "overrides.yaml", overrides)
    write_text(run.folder / ".hydra" / "run_id", run.identifier)
    write_text(run.folder / ".hydra" / "config.yaml", OmegaConf.to_yaml(composed))  # last: it makes the run
