"""From a composed configuration to objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf


class UserError(Exception):
    """A mistake of the user, as one sentence."""


def plain(config: DictConfig) -> dict[str, Any]:
    """A configuration as plain, resolved types."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): entry for key, entry in container.items()}


def build(config: dict[str, Any], name: str, **arguments: Any) -> Any:
    """Instantiate the node `name` of a plain configuration; a wrong value is a UserError."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    node = config[name]
    if not isinstance(node, dict) or "_target_" not in node:
        raise UserError(f"{name} must be one of the options in conf/{name}, got {node!r}")
    try:
        return instantiate(node, **arguments, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):
            raise UserError(str(cause)) from error
        if isinstance(cause, TypeError):
            raise UserError(f"{name}: {cause}; it was given {_shown(node)}") from error
        raise UserError(f"{name}: {str(error).splitlines()[0]}") from error


def _shown(node: dict[str, Any]) -> str:
    return ", ".join(f"{key}={entry}" for key, entry in node.items() if not key.startswith("_"))


def whole_number(config: dict[str, Any], key: str, least: int, group: str = "") -> int:
    """A whole number of at least `least`, or a UserError. `group` is where `config` stands, for the message."""
    number = config[key]
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        name = f"{group}.{key}" if group else key
        raise UserError(f"{name} must be a whole number of at least {least}, got {number!r}")
    return number


def differs_from_file(conf: Path, group: str, option: str, node: dict[str, Any]) -> bool:
    """Whether a composed node is anything else than the option's file says."""
    return plain(OmegaConf.load(conf / group / f"{option}.yaml")) != node  # type: ignore[arg-type]
