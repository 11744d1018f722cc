"""Mistakes of the user, answered in one sentence with the name that was probably meant."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from truthful.app.help import help_text
from truthful.app.jobs import end_with_launcher, run_job
from truthful.app.runs import register_resolvers
from truthful.errors import UserError, nearest, one_line

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

_wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"


def run_script(script: Callable[[], None], conf: Path, config_name: str, usage: str) -> None:
    """Run a Hydra main function; a mistake of the user is one sentence on stderr and exit code 1, no traceback.

    `usage` is the head of the help. HYDRA_FULL_ERROR=1 in the environment shows the traceback all the same.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # more hardly help networks of this size, see benchmarks/step.py
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing
    register_resolvers()
    if {"--help", "-h"} & set(sys.argv[1:]):
        sys.stdout.write(help_text(usage, conf, config_name))
        return
    sys.argv[1:] = [_quote_path(argument) for argument in sys.argv[1:]]
    if config_name == "evaluate" and not any(argument.startswith("setting=") for argument in sys.argv[1:]):
        # single keys of the setting change the run's own, which the configuration does not have yet
        sys.argv[1:] = [f"+{argument}" if argument.startswith("setting.") else argument for argument in sys.argv[1:]]
    try:
        check_override_keys(sys.argv[1:], conf, config_name)
        script()
    except KeyboardInterrupt:
        resumable = "resume" in _top_level_keys(conf, config_name)
        same = "with resume=auto goes on from the last checkpoint" if resumable else "goes on where this one stopped"
        stop(f"interrupted; the same command {same}", INTERRUPTED)
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
        if _wants_traceback:
            raise
        stop(_composition_sentence(error, conf, config_name))


def stop(sentence: str, code: int = 1) -> NoReturn:
    """Say one sentence on stderr and leave."""
    sys.stderr.write(f"{Path(sys.argv[0]).name}: {sentence}\n")
    raise SystemExit(code)


def answer_mistakes(task: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Wrap a Hydra task: in a single run a UserError ends the program; in a multirun any error fails this job only."""

    def wrapped(config: DictConfig) -> None:
        end_with_launcher()
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            run_job(task, config)
            return
        try:
            task(config)
        except Exception as error:
            folder = Path(HydraConfig.get().runtime.output_dir)
            with contextlib.suppress(OSError):
                if folder != Path.cwd():
                    folder.rmdir()  # if nothing is in it
            if _wants_traceback or not isinstance(error, UserError | OSError | OmegaConfBaseException):
                raise
            stop(one_line(error))

    return wrapped


def _quote_path(argument: str) -> str:
    """Quote the folder or file of an argument that names one, so that Hydra takes it whatever its characters."""
    key, _, path = argument.partition("=")
    if key == "run" and path.startswith("[") and path.endswith("]"):
        runs = (run.strip() for run in path[1:-1].split(","))
        return f"run=[{','.join(_quoted(run) for run in runs if run)}]"
    if key not in ("run", "resume", "checkpoint", "hydra.run.dir") or not path or path[0] in "'\"$" or path == "null":
        return argument
    return f"{key}={_quoted(path)}"


def _quoted(path: str) -> str:
    return path if path[0] in "'\"$" else f"'{path}'"


def _composition_sentence(error: Exception, conf: Path, config_name: str) -> str:
    """What Hydra has to say, in one line, with the name that was probably meant."""
    text = str(error)
    if missing := re.search(r"Could not (?:find|load) '(?P<group>.+)/(?P<option>[^/']*)'", text):
        group, option = missing["group"], missing["option"]
        options = _options(conf, group)
        if group == "hydra/launcher":
            return f"there is no hydra/launcher={option}, or it is not installed: see requirements-extra.txt"
        return f"there is no {group}={option}{_suggest(option, options)}; options: {', '.join(options)}"
    if learned := re.search(r"In 'mechanism/(?P<name>\w+)': Could not override", text):  # a group of train.py alone
        return f"mechanism={learned['name']} has to be trained first: give run=<folder>"
    if unknown := re.search(r"Could not (?:override|delete from config\.) '(?P<key>[^'@]+)", text):
        return _unknown_key(unknown["key"], _known_keys(conf, config_name))
    return one_line(error)


def check_override_keys(arguments: Sequence[str], conf: Path, config_name: str) -> None:
    """Refuse an override of a key that no file of the configuration mentions, before Hydra takes its time."""
    if any(argument.startswith(("-cd", "--config")) for argument in arguments):
        return  # there are other files
    known = _known_keys(conf, config_name)
    optional = re.findall(r"^ +- (\S+): null", (conf / f"{config_name}.yaml").read_text(), re.MULTILINE)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and not key:
            raise UserError(f"{argument!r} has no key before the equals sign")
        if value == "null" and (conf / key).is_dir() and key not in optional:
            raise UserError(f"{key} cannot be null; options: {', '.join(_options(conf, key))}")
        if equals and key[:1].isalpha() and not key.startswith("hydra") and "@" not in key and key not in known:
            raise UserError(_unknown_key(key, known))


def _unknown_key(key: str, known: Collection[str]) -> str:
    if key in known:
        return f"the chosen options have no {key!r} to override"
    return f"there is no {key!r} to override{_suggest(key, known)}"


def _options(conf: Path, group: str) -> list[str]:
    return sorted(path.stem for path in (conf / group).glob("*.yaml"))


def _suggest(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' if something similar exists."""
    meant = nearest(name, known)
    return f"; did you mean {meant}?" if meant else ""


@functools.cache
def _known_keys(conf: Path, config_name: str) -> frozenset[str]:
    """Every group and every dotted key that the files of the configuration mention.

    Read off the indentation: composing the configuration would take longer than the answer should.
    """
    keys = set()
    for path in conf.rglob("*.yaml"):
        group = path.parent.relative_to(conf)
        if path.parent == conf and path.stem != config_name:
            continue
        text = path.read_text()
        package = re.search(r"^# @package (\S+)", text, re.MULTILINE)
        prefix = package[1] if package else ".".join(group.parts)
        keys.add(str(group))
        open_keys: list[tuple[int, str]] = []
        for indent, name in re.findall(r"^( *)(\w+):", text, re.MULTILINE):
            while open_keys and open_keys[-1][0] >= len(indent):
                open_keys.pop()
            open_keys.append((len(indent), name))
            keys.add(".".join([*prefix.replace("_global_", "").split("."), *(key for _, key in open_keys)]).lstrip("."))
    return frozenset(keys - {".", "hydra", "defaults"})


def check_keys(config: DictConfig, conf: Path, config_name: str) -> None:
    """Refuse top-level keys that `+key=value` has added; Hydra adds whatever is asked for."""
    known = _top_level_keys(conf, config_name)
    for key in map(str, config):
        if key not in known:
            raise UserError(f"there is no {key!r} in the configuration{_suggest(key, known)}")
    dotted = _known_keys(conf, config_name)
    for group in ("trainer", "audit", "recipe"):  # the others are checked against their constructors
        for key in map(str, config.get(group) or ()):
            if f"{group}.{key}" not in dotted:
                raise UserError(f"there is no {group}.{key}{_suggest(f'{group}.{key}', dotted)}")


def _top_level_keys(conf: Path, config_name: str) -> set[str]:
    root = OmegaConf.load(conf / f"{config_name}.yaml")
    groups = {path.name for path in conf.iterdir() if path.is_dir()}
    return {str(key) for key in root} | groups
