"""From a composed configuration to objects."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from truthful.errors import UserError, nearest
from truthful.results import file_digest

if TYPE_CHECKING:
    from truthful.constraints import Constraint
    from truthful.mechanisms import Mechanism
    from truthful.settings import Setting


def plain(config: DictConfig | ListConfig) -> dict[str, Any]:
    """A configuration as plain, resolved types."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): entry for key, entry in container.items()}


def build(config: dict[str, Any], name: str, **arguments: Any) -> Any:
    """Instantiate the node `name` of a plain configuration; a wrong key or value is a UserError.

    `arguments` reach the constructor as they are, beside the node's own.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    node = config[name]
    if not isinstance(node, dict) or "_target_" not in node:
        raise UserError(f"{name} must be one of the options in conf/{name}, got {node!r}")
    try:
        check_arguments(node, name)
        if arguments:
            return instantiate({**node, "_partial_": True}, _convert_="all")(**arguments)
        return instantiate(node, _convert_="all")
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    except InstantiationException as error:
        cause = error.__cause__
        raise UserError(str(cause) if isinstance(cause, ValueError) else f"{name}: {cause or error}") from error


def pin_data(*nodes: Any) -> None:
    """Put the digests of the files that nodes name into them, unless they are there: so hashes cover the data.

    A file that is not there is a UserError.
    """
    for node in nodes:
        if isinstance(node, dict | DictConfig) and node.get("file") and node.get("sha256") is None:
            try:
                node["sha256"] = file_digest(Path(str(node["file"])))
            except ValueError as error:
                raise UserError(str(error)) from error


def check_split(trained: dict[str, Any], evaluated: dict[str, Any]) -> None:
    """Refuse another split of the data that a run was trained on."""
    if trained.get("sha256") is None or trained["sha256"] != evaluated.get("sha256"):
        return
    for key in ("split", "split_seed"):
        if trained[key] != evaluated[key]:
            raise UserError(
                f"setting.{key} must be {trained[key]}, as in training, got {evaluated[key]}: the audit would have "
                "auctions that the run was trained on"
            )


def build_mechanism(config: dict[str, Any], setting: Setting) -> Mechanism:
    """The mechanism of a configuration for a setting; one whose rule depends on the laws of values takes all of it."""
    from hydra.utils import get_object

    try:
        taken = set(inspect.signature(get_object(config["mechanism"]["_target_"])).parameters)
    except (ImportError, ValueError, TypeError, KeyError):  # build says what is wrong
        taken = set(setting.shape)
    for name, what in (("budgeted", "private budgets"), ("features", "contexts")):
        if name in setting.shape and name not in taken:
            kind = config["mechanism"]["_target_"].split(".")[-1]
            raise UserError(
                f"the setting has {what}, which {kind} cannot take; docs/mechanisms.md says which mechanisms can"
            )
    whole = "setting" in taken
    mechanism: Mechanism = build(config, "mechanism", **({"setting": setting} if whole else setting.shape))
    return mechanism


def build_constraints(config: dict[str, Any], setting: Setting) -> dict[str, Constraint]:
    """The constraints of a configuration by name; runs from before there were any have none."""
    nodes, constraints = config.get("constraint") or {}, {}
    for name, node in nodes.items():
        if not isinstance(node, dict):
            raise UserError(f"constraint must be one or several of the options in conf/constraint, got {name}={node!r}")
        try:
            constraints[name] = build(nodes, name, setting=setting)
        except UserError as error:
            raise UserError(f"constraint.{name}: {error}") from error
    return constraints


def build_trained(checkpoint: dict[str, Any], config: dict[str, Any] | None = None) -> tuple[Setting, Mechanism]:
    """The setting and the mechanism of a training checkpoint; of `config` instead of its own, if that is given."""
    from truthful import checkpoints

    config = checkpoint["run"]["config"] if config is None else config
    setting = build(config, "setting")
    mechanism = build_mechanism(config, setting)
    checkpoints.restore_mechanism(mechanism, checkpoint)
    return setting, mechanism


def check_arguments(node: dict[str, Any], name: str) -> None:
    """Compare a node's keys and numbers with its target's signature, and those of the nodes in it."""
    from hydra.utils import get_object

    try:
        parameters = inspect.signature(get_object(node["_target_"])).parameters
    except (ImportError, ValueError) as error:
        raise UserError(f"{name}._target_ must be importable, got {node['_target_']!r} ({error})") from error
    for key, entry in node.items():
        if isinstance(entry, dict) and "_target_" in entry:
            check_arguments(entry, f"{name}.{key}")
        if key.startswith("_"):
            continue
        if key not in parameters:
            meant = nearest(key, parameters)
            raise UserError(f"there is no {name}.{key}{f'; did you mean {name}.{meant}?' if meant else ''}")
        wanted = {part.strip() for part in str(parameters[key].annotation).split("|")}
        if "float" in wanted and (isinstance(entry, str) or (entry is None and "None" not in wanted)):
            raise UserError(f"{name}.{key} must be a number, got {entry!r}")
        if wanted == {"bool"} and not isinstance(entry, bool):
            raise UserError(f"{name}.{key} must be true or false, got {entry!r}")


def whole_number(config: dict[str, Any], key: str, least: int, group: str = "") -> int:
    """A whole number of at least `least`, or a UserError. `group` is where `config` stands, for the message."""
    number = config[key]
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        name = f"{group}.{key}" if group else key
        raise UserError(f"{name} must be a whole number of at least {least}, got {number!r}")
    return number


def differs_from_file(conf: Path, group: str, option: str, node: dict[str, Any]) -> bool:
    """Whether a composed node is anything else than the option's file (if it is one of ours) says."""
    file = conf / group / f"{option}.yaml"
    return not file.exists() or plain(OmegaConf.load(file)) != node


def changes_from_file(conf: Path, group: str, option: str, node: dict[str, Any]) -> dict[str, Any]:
    """The entries of a composed node that the option's file, if it is one of ours, has otherwise or not at all."""
    file = conf / group / f"{option}.yaml"
    if not file.exists():
        return {}
    there = plain(OmegaConf.load(file))
    return {key: entry for key, entry in node.items() if key not in there or there[key] != entry}


def describe_choices(config: dict[str, Any], choices: dict[str, Any], conf: Path) -> dict[str, Any]:
    """What result.json says of a configuration, by the names on the command line; None for what was not trained."""
    trained = "regret" in config
    names = ("iterations", "batch", "seed")
    return {
        "setting": choices["setting"],
        "regret_mode": choices["regret"] if trained else None,
        "setting_overridden": differs_from_file(conf, "setting", choices["setting"], config["setting"]),
        "setting_overrides": changes_from_file(conf, "setting", choices["setting"], config["setting"]),
        "mechanism": choices["mechanism"],
        "dual": choices["dual"] if trained else None,
        "rmax": _budget(config, choices) if trained else None,
        "experiment": choices.get("experiment"),
        **{name: config.get(name) for name in names},
        "depth": config["mechanism"].get("depth"),
        "choices": {group: option for group, option in choices.items() if not group.startswith("hydra/")},
        "config": config,
    }


def audited_budget(config: dict[str, Any]) -> float | None:
    """The final R_max that audited regret is to meet, or None where training's own regret is."""
    from hydra.utils import get_class

    rmax = config.get("rmax")
    return rmax["end"] if rmax and get_class(rmax["_target_"]).uses_audits else None


def _budget(config: dict[str, Any], choices: dict[str, Any]) -> dict[str, Any] | None:
    """Schedule, start and end of R_max, or None where the dual does not use it."""
    from hydra.utils import get_class

    if not get_class(config["dual"]["_target_"]).uses_budget:
        return None
    end = config["rmax"]["end"]
    return {"schedule": choices["rmax"], "start": config["rmax"].get("start", end), "end": end}
