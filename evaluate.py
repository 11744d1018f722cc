"""Audit trained auctions, or an auction that needs no training.

python evaluate.py run=outputs/<run>                      strong audit of 10,000 fresh profiles
python evaluate.py run=[outputs/<run>,outputs/<other>]    several, each in a sub-folder
python evaluate.py run=outputs/<run> audit=certified      lower <= regret <= upper
python evaluate.py run=outputs/<run> setting.high=2       on other values
python evaluate.py checkpoint=last.ckpt
python evaluate.py mechanism=second_price setting=a
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf.errors import InterpolationKeyError

from truthful.app import (
    answer_mistakes,
    audited_budget,
    build,
    build_constraints,
    build_mechanism,
    build_trained,
    check_keys,
    check_split,
    current_choices,
    describe_choices,
    multirun_name,
    pin_data,
    plain,
    run_script,
    shown,
)
from truthful.ceilings import find_bound
from truthful.errors import UserError
from truthful.results import (
    CHECKPOINT,
    JOURNAL,
    ORIGIN,
    RESULT,
    budget_summary,
    config_hash,
    exploitation,
    method_hash,
    provenance,
    recipe_hash,
    train_summary,
    write_json,
)

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger
    from rich.console import Console

    from truthful.constraints import Constraint
    from truthful.mechanisms import Mechanism
    from truthful.settings import Setting

CONF = Path(__file__).resolve().parent / "conf"
BOUNDS = Path(__file__).resolve().parent / "results" / "bounds"


@dataclass(frozen=True)
class Source:
    """What is audited."""

    config: dict[str, Any]
    choices: dict[str, Any]
    setting: Setting
    mechanism: Mechanism
    constraints: dict[str, Constraint]
    elsewhere: bool
    """Whether the setting is not the one of the training."""
    path: Path | None = None
    checkpoint: dict[str, Any] | None = None


@answer_mistakes
def evaluate(composed: DictConfig) -> None:
    """Audit, write result.json, show it; for several runs each in a sub-folder."""
    check_keys(composed, CONF, "evaluate")
    given = [key for key in ("run", "checkpoint", "mechanism") if composed.get(key) is not None]
    if len(given) != 1:
        raise UserError(
            "evaluate.py needs one of run=<folder>, checkpoint=<file> and mechanism=<name> with setting=<name>, got "
            + (" and ".join(given) or "none of them")
        )
    try:
        config = plain(composed)
    except InterpolationKeyError:  # the network's depth belongs to a run
        raise UserError("this mechanism has to be trained first: give run= or checkpoint=") from None
    folder = Path(HydraConfig.get().runtime.output_dir)
    if (folder / ".hydra" / "config.yaml").exists():
        raise UserError(f"{shown(folder)} is the folder of a run; choose another hydra.run.dir")

    from rich.console import Console

    from truthful.auditing import check_audit
    from truthful.engine import device_for

    device_for(config["trainer"]["accelerator"])
    seed = config["audit"]["seed"]
    try:
        check_audit(**{**config["audit"], "seed": 0 if seed is None else seed})
    except ValueError as error:
        raise UserError(str(error)) from error
    console = Console()
    several = isinstance(config["run"], list)
    sources = [open_source(config, run) for run in (config["run"] if several else [config["run"]])]
    names = sub_folders([str(run) for run in config["run"]]) if several else [""]
    for source, name in zip(sources, names, strict=True):
        audit_source(source, config, folder / name, console)


def sub_folders(runs: list[str]) -> list[str]:
    """A sub-folder for each run, named after it; of several with one name the later are numbered."""
    if not runs:
        raise UserError("run=[] names no run")
    names = [Path(run).name for run in runs]
    return [name if names.index(name) == k else f"{name}_{k + 1}" for k, name in enumerate(names)]


def open_source(config: dict[str, Any], run: str | None) -> Source:
    """Build what a configuration names: the mechanism of a run or a checkpoint, or one that needs no training."""
    from truthful import checkpoints

    chosen = current_choices()
    if "mechanism" not in config:
        path = Path(config["checkpoint"] or Path(str(run)) / CHECKPOINT)
        checkpoint = checkpoints.load(path)
        trained, choices = checkpoint["run"]["config"], dict(checkpoint["run"]["choices"])
        evaluated = {**trained, "audit": config["audit"]}
        if chosen.get("setting") is not None:
            evaluated["setting"], choices["setting"] = config["setting"], chosen["setting"]
        elif "setting" in config:
            evaluated["setting"] = {**trained["setting"], **config["setting"]}
        elsewhere = "setting" in config
        pin_data(evaluated["setting"])
        check_split(trained["setting"], evaluated["setting"])
        setting, mechanism = build_trained(checkpoint, evaluated)
        constraints = build_constraints(evaluated, setting)
        checkpoints.restore_constraints(constraints, checkpoint)
    else:
        if chosen.get("setting") is None:
            raise UserError("mechanism=<name> needs a setting=<name>, too")
        path, checkpoint, elsewhere, choices = None, None, False, chosen
        evaluated = {key: entry for key, entry in config.items() if key != "trainer"}
        pin_data(evaluated["setting"])
        setting = build(evaluated, "setting")
        mechanism, constraints = build_mechanism(evaluated, setting), {}
        if list(mechanism.parameters()):
            raise UserError(f"mechanism={choices['mechanism']} has to be trained first: give run= or checkpoint=")
    if evaluated["audit"]["seed"] is None:
        evaluated["audit"] = {**evaluated["audit"], "seed": 2 if checkpoint and evaluated["seed"] == 1 else 1}
    return Source(evaluated, choices, setting, mechanism, constraints, elsewhere, path, checkpoint)


def audit_source(source: Source, config: dict[str, Any], folder: Path, console: Console) -> None:
    """Audit one mechanism, write everything to `folder`, show it."""
    from truthful import logging
    from truthful.audit_plots import save_pictures
    from truthful.auditing import audit, audit_constraints
    from truthful.console import describe, published_dict, show_audit_progress, show_result
    from truthful.engine import device_for

    setting, checkpoint = source.setting, source.checkpoint
    console.print(
        f"auditing {source.choices['mechanism']} on {source.choices['setting']}: {describe(setting)}", soft_wrap=True
    )
    train = None if checkpoint is None else train_summary(checkpoint)
    if train is not None and train["completed"] < source.config["iterations"]:
        text = f"warning: training is at {train['completed']} of {source.config['iterations']} iterations"
        console.print(text, style="yellow")
    bound = find_bound(BOUNDS, source.config["setting"])
    description = describe_choices(source.config, source.choices, CONF)
    result: dict[str, Any] = {
        **description,
        "config_hash": config_hash(source.config),
        "recipe_hash": recipe_hash(source.config),
        "method_hash": method_hash(source.config),
        **provenance(),
        "published": None if source.elsewhere else published_dict(description),
        "checkpoint": None if source.path is None else str(source.path),
        "trained": None if checkpoint is None else origin(checkpoint["run"]),
        "train": train,
        "optimal_revenue": setting.optimal_revenue,
        "bound": bound,
        "observed": setting.observed,
        "exact_revenue": source.mechanism.exact_revenue(setting),
    }
    if checkpoint is None:
        result["fitted"] = source.mechanism.fitted
    loggers = build_loggers(config, source, result, folder)
    for part in (source.mechanism, *source.constraints.values()):
        part.to(device_for(config["trainer"]["accelerator"]))
    with logging.recorded(loggers):
        with show_audit_progress(console) as progress:
            try:
                report = audit(
                    source.mechanism,
                    setting,
                    **source.config["audit"],
                    bound=None if bound is None else bound["limit"],
                    journal=folder / JOURNAL,
                    progress=progress,
                )
            except ValueError as error:
                raise UserError(str(error)) from error
        result["audit"] = report.as_dict()
        result["constraints"] = audit_constraints(source.mechanism, source.constraints, report.instances.values)
        if train is not None and not source.elsewhere:
            result["exploitation"] = exploitation(report.regret_sum, train["regret_sum"])
            result["budget"] = budget_summary(audited_budget(source.config), result["audit"])
        write_json(folder / RESULT, result)
        report.save_misreports(folder / "misreports.npz")
        pictures = save_pictures(report, source.mechanism, setting, folder)
        logging.log_audit(loggers, result, pictures, iteration=0)
        show_result(console, result, setting.optimal_revenue)
        written = ", ".join([RESULT, "misreports.npz", *(path.name for path in pictures.values())])
        console.print(f"audited in {report.seconds:.0f} s; {shown(folder)} has {written}", soft_wrap=True)
        (folder / JOURNAL).unlink(missing_ok=True)


def build_loggers(config: dict[str, Any], source: Source, result: dict[str, Any], folder: Path) -> list[Logger]:
    """The loggers that the configuration asks for."""
    from truthful.logging import RunInfo

    names = ("setting", "regret", "mechanism", "dual", "rmax")
    short = {key: source.choices[key] for key in names if source.choices.get(key) is not None}
    info = RunInfo(
        folder=folder,
        name=folder.name,
        identifier=config_hash({"folder": str(folder), "hash": result["config_hash"]})[:12],
        job="evaluate",
        tags=[source.choices[key] for key in ("setting", "regret", "mechanism") if source.choices.get(key)],
        group=multirun_name(),
        config={**short, **{key: result[key] for key in ("config_hash", *ORIGIN)}, "cfg": source.config},
    )
    return [build(config["logger"], name, run=info) for name in config["logger"]]


def origin(run: dict[str, Any]) -> dict[str, Any]:
    """Where a trained mechanism comes from: its setting, and the commit, command and hardware of its training."""
    return {"setting": run["choices"]["setting"], "config_hash": run["config_hash"], **run.get("origin", {})}


@hydra.main(config_path=str(CONF), config_name="evaluate", version_base="1.3")
def main(config: DictConfig) -> None:
    """Hydra's entry."""
    evaluate(config)


if __name__ == "__main__":
    run_script(main, CONF, "evaluate", usage=__doc__)
