"""What a study is: a file in conf/study and the rest of the command line, in Hydra's own grammar."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from truthful.app.building import plain, whole_number
from truthful.app.composing import Composer
from truthful.app.runs import sweep_name
from truthful.errors import UserError, nearest
from truthful.results import volatile_part
from truthful.study import Axis, Choice, Interval, Pruning, Whole

AUDIT_SEED = 1000
"""Of the profiles that all trials are audited on. What is chosen by them looks better on them than it is, so no table
uses them."""
CORNERS = 64
"""So many combinations of extremes are tried before any trial; where there are more, each extreme once."""
REFUSED = {
    "sweep": "a study has its own trials",
    "resume": "a study goes on by itself",
    "population": "each trial is one network",
    "vary": "each trial is one network",
    "audit.seed": f"trials are audited on profiles of their own (audit.seed={AUDIT_SEED})",
}
"""Overrides that a study cannot take, and why."""
INCOMPARABLE = {
    "setting": "revenue in one setting says nothing about another",
    "audit": "regret means what the audit finds, so all trials need the same",
    "seed": "a study would choose the luckiest",
}
"""What a study cannot vary, and why; and the keys below."""


@dataclass(frozen=True)
class Declaration:
    """A study as it was asked for."""

    name: str
    folder: Path
    trials: int
    workers: int
    pruning: Pruning | None
    fixed: dict[str, str]
    """Overrides that every trial has, by their keys."""
    axes: dict[str, Axis]
    """What trials differ in, by key."""

    @property
    def declared(self) -> dict[str, str]:
        """What has to be the same when the study goes on."""
        fixed = {key: text.partition("=")[2] for key, text in self.fixed.items() if volatile_part(key) is None}
        return fixed | {key: str(axis) for key, axis in self.axes.items()}

    def corners(self) -> list[list[str]]:
        """Overrides of trials at the ends of the space."""
        extremes = [[f"{key}={text}" for text in axis.extremes()] for key, axis in self.axes.items()]
        product = list(itertools.islice(itertools.product(*extremes), CORNERS + 1))
        if len(product) > CORNERS:
            longest = max(map(len, extremes))
            product = [tuple(texts[k % len(texts)] for texts in extremes) for k in range(longest)]
        return [[*self.fixed.values(), *corner] for corner in product]

    def first(self, config: DictConfig, choices: Mapping[str, Any]) -> dict[str, Any] | None:
        """What the configuration without the study has, as a point of the space; None if it is outside."""
        places = {
            key: axis.place(choices[key] if key in choices else OmegaConf.select(config, key))
            for key, axis in self.axes.items()
        }
        return None if None in places.values() else places


def read_declaration(arguments: Sequence[str], conf: Path) -> Declaration:
    """A study from `study=<name>`, its keys (`study.trials=30`), and what all its trials get.

    Whatever is given for a key replaces what the study's file has for it: a value, a list, or a range. The study lives
    in a folder that is named after all that was given and can change a number.

    Raises:
        UserError: what is wrong.
    """
    if flags := [argument for argument in arguments if argument.startswith("-")]:
        raise UserError(f"study.py takes study=<name> and overrides, got {flags[0]}")
    parsed = OverridesParser.create().parse_overrides(list(arguments))
    named = [override for override in parsed if override.key_or_group == "study"]
    own = [override for override in parsed if override.key_or_group.startswith("study.")]
    rest = [override for override in parsed if override not in named + own]
    options = sorted(path.stem for path in (conf / "study").glob("*.yaml"))
    name = str(named[0].value()) if len(named) == 1 else None
    if name not in options:
        meant = nearest(name, options) if name else None
        missing = f"there is no study={name}" if name else "study=<name> is missing"
        raise UserError(f"{missing}{f'; did you mean {meant}?' if meant else ''}; options: {', '.join(options)}")
    node = plain(OmegaConf.load(conf / "study" / f"{name}.yaml"))
    for override in own:
        _set(node, override)
    texts = [f"{key}={entry if isinstance(entry, str) else json.dumps(entry)}" for key, entry in node["params"].items()]
    given: dict[str, Override] = {}
    for override in [*OverridesParser.create().parse_overrides(texts), *rest]:
        given[override.key_or_group] = override
    axes = {key: _axis(key, override) for key, override in given.items() if override.is_sweep_override()}
    fixed = {key: str(override.input_line) for key, override in given.items() if key not in axes}
    for key in fixed:
        if key in REFUSED or key.startswith("hydra"):
            raise UserError(f"{key}= is not for studies: {REFUSED.get(key, 'they have their own folders')}")
    if not axes:
        raise UserError(f"study={name} varies nothing; give a key a range, such as 'optimizer.lr=interval(1e-3,1e-2)'")
    return Declaration(
        name=str(name),
        folder=Path("multirun", sweep_name({}, [f"study={name}", *(str(override.input_line) for override in rest)])),
        trials=whole_number(node, "trials", 1, group="study"),
        workers=whole_number(node, "workers", 1, group="study"),
        pruning=None if node["pruning"] is None else _pruning(node["pruning"]),
        fixed={"logger": "logger=none"} | fixed | {"audit.seed": f"audit.seed={AUDIT_SEED}"},
        axes=axes,
    )


@contextmanager
def composing(conf: Path) -> Iterator[Composer]:
    """Compose runs of train.py outside of Hydra's own main function."""
    setup_globals()
    with initialize_config_dir(str(conf), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield Composer(loader, loader.load_configuration("config", [], run_mode=RunMode.MULTIRUN))


def _set(node: dict[str, Any], override: Override) -> None:
    """Change a key of the study's own."""
    *parents, last = override.key_or_group.split(".")[1:]
    for parent in parents:
        node = node.get(parent) or {}
    if last not in node:
        raise UserError(f"there is no {override.key_or_group} to override")
    node[last] = override.value()


def _pruning(node: Any) -> Pruning:
    names = [field.name for field in fields(Pruning)]
    if not isinstance(node, dict) or sorted(node) != sorted(names):
        raise UserError(f"study.pruning must be null or have the keys {', '.join(names)}, got {node!r}")
    return Pruning(**node)


def _axis(key: str, override: Override) -> Axis:
    for group, why in INCOMPARABLE.items():
        if key == group or key.startswith((f"{group}.", f"{group}/")):
            raise UserError(f"a study cannot vary {key}: {why}")
    if key in REFUSED:
        raise UserError(f"a study cannot vary {key}: {REFUSED[key]}")
    values = override.value()
    try:
        if isinstance(values, IntervalSweep):
            log = "log" in values.tags
            if isinstance(values.start, int) and isinstance(values.end, int):
                return Whole(values.start, values.end, step=1, log=log)
            return Interval(float(values.start or 0.0), float(values.end or 0.0), log=log)
        if isinstance(values, RangeSweep) and all(type(n) is int for n in (values.start, values.stop, values.step)):
            whole = [int(number) for number in values.range()] or [0]
            return Whole(min(whole), max(whole), step=abs(int(values.step)), log="log" in values.tags)
        if isinstance(values, RangeSweep | ChoiceSweep):
            return Choice(tuple(override.sweep_string_iterator()))
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    raise UserError(f"{key}: a study takes interval(...), range(...) and lists, got {override.input_line}")
