"""Mistakes of the user, answered in one sentence with the name that was probably meant."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from truthful.app.building import UserError
from truthful.app.runs import register_resolvers

_wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"


def run_script(script: Callable[[], None], conf: Path, config_name: str) -> None:
    """Run a Hydra main function; a mistake of the user is one sentence on stderr and exit code 1, no traceback.

    HYDRA_FULL_ERROR=1 in the environment shows the traceback all the same.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing
    register_resolvers()
    try:
        script()
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
        if _wants_traceback:
            raise
        stop(_sentence(error, conf, config_name))


def stop(sentence: str, code: int = 1) -> None:
    """Say one sentence on stderr and leave."""
    sys.stderr.write(f"{Path(sys.argv[0]).name}: {sentence}\n")
    raise SystemExit(code)


def answer_mistakes(task: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Wrap a Hydra task: in a single run a UserError ends the program; in a multirun it fails this job only."""

    def wrapped(config: DictConfig) -> None:
        try:
            task(config)
        except (UserError, OSError) as error:
            if _wants_traceback or HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            stop(_os_sentence(error) if isinstance(error, OSError) else str(error))

    return wrapped


def _os_sentence(error: OSError) -> str:
    return f"cannot use {error.filename!r}: {error.strerror}" if error.filename else str(error)


def _sentence(error: Exception, conf: Path, config_name: str) -> str:
    """What Hydra has to say, in one line, with the name that was probably meant."""
    text = str(error)
    if isinstance(error, OSError):
        return _os_sentence(error)
    if missing := re.search(r"Could not find '(?P<group>.+)/(?P<option>[^/']*)'", text):
        group, option = missing["group"], missing["option"]
        options = sorted(path.stem for path in (conf / group).glob("*.yaml"))
        return f"there is no {group}={option}{_suggest(option, options)}; options: {', '.join(options)}"
    if unknown := re.search(r"Could not (?:override|delete from config\.) '(?P<key>[^'@]+)", text):
        key = unknown["key"]
        return f"there is no {key!r} to override{_suggest(key, _known_keys(conf, config_name))}"
    if interpolation := re.search(r"Interpolation key '([^']+)' not found", text):
        return f"the configuration refers to {interpolation[1]!r}, which does not exist"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _suggest(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' if something similar exists, by the whole name or by its last part."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if not close:
        last = name.rpartition(".")[2]
        close = [key for key in known if difflib.SequenceMatcher(None, last, key.rpartition(".")[2]).ratio() > 0.84]
    return f"; did you mean {close[0]}?" if close else ""


def _known_keys(conf: Path, config_name: str) -> set[str]:
    """Every key of the configuration as the command line's valid part composes it."""
    groups = {str(path.parent.relative_to(conf)) for path in conf.rglob("*.yaml")} - {"."}
    overrides = []
    for argument in sys.argv[1:]:
        key = argument.partition("=")[0]
        if key in groups:
            overrides.append(argument)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            config = compose(config_name, overrides=overrides)
    except (HydraException, OmegaConfBaseException):
        return groups | _top_level_keys(conf, config_name)
    return groups | set(_dotted(OmegaConf.to_container(config, resolve=False)))


def _dotted(node: Any, prefix: str = "") -> Iterable[str]:
    if isinstance(node, dict):
        for key, entry in node.items():
            if not str(key).startswith("_"):
                yield prefix + str(key)
                yield from _dotted(entry, f"{prefix}{key}.")


def check_keys(config: dict[str, Any], conf: Path, config_name: str) -> None:
    """Refuse top-level keys that `+key=value` has added; Hydra adds whatever is asked for."""
    known = _top_level_keys(conf, config_name)
    for key in config:
        if key not in known:
            raise UserError(f"there is no {key!r} in the configuration{_suggest(key, known)}")


def _top_level_keys(conf: Path, config_name: str) -> set[str]:
    root = OmegaConf.load(conf / f"{config_name}.yaml")
    groups = {path.name for path in conf.iterdir() if path.is_dir()}
    return {str(key) for key in root} | groups
