"""Audit a trained auction again, or an auction that needs no training.

python evaluate.py run=outputs/<run> audit.samples=10000 audit.seed=1
python evaluate.py checkpoint=last.ckpt
python evaluate.py mechanism=second_price setting=a
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf.errors import InterpolationKeyError

from truthful.app import (
    answer_mistakes,
    build,
    check_keys,
    current_choices,
    describe_choices,
    plain,
    run_script,
    shown,
)
from truthful.errors import UserError
from truthful.results import CHECKPOINT, RESULT, config_hash, provenance, train_summary, write_json

CONF = Path(__file__).resolve().parent / "conf"


@answer_mistakes
def evaluate(composed: DictConfig) -> None:
    """Audit, write result.json, show it."""
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
    chosen = current_choices()

    folder = Path(HydraConfig.get().runtime.output_dir)
    if (folder / ".hydra" / "config.yaml").exists():
        raise UserError(f"{shown(folder)} is the folder of a run; choose another hydra.run.dir")

    from rich.console import Console

    from truthful import checkpoints
    from truthful.auditing import audit, check_audit
    from truthful.console import describe, published_dict, show_result

    console = Console()
    try:
        check_audit(**config["audit"])
    except ValueError as error:
        raise UserError(str(error)) from error
    checkpoint, path, elsewhere = None, None, False
    if "mechanism" not in config:
        path = Path(config["checkpoint"] or Path(config["run"]) / CHECKPOINT)
        checkpoint = checkpoints.load(path)
        trained, choices = checkpoint["run"]["config"], dict(checkpoint["run"]["choices"])
        evaluated = {**trained, "audit": config["audit"]}
        elsewhere = "setting" in config
        if elsewhere:
            evaluated["setting"], choices["setting"] = config["setting"], chosen["setting"]
    else:
        if "setting" not in config:
            raise UserError("mechanism=<name> needs a setting=<name>, too")
        evaluated, choices = config, chosen
    setting = build(evaluated, "setting")
    mechanism = build(evaluated, "mechanism", **setting.shape)
    if checkpoint is not None:
        checkpoints.restore_mechanism(mechanism, checkpoint)
    elif list(mechanism.parameters()):
        raise UserError(f"mechanism={choices['mechanism']} has to be trained first: give run= or checkpoint=")

    console.print(f"auditing {choices['mechanism']} on {choices['setting']}: {describe(setting)}", soft_wrap=True)
    if checkpoint is not None and int(checkpoint["state_dict"]["completed"]) < evaluated["iterations"]:
        done = int(checkpoint["state_dict"]["completed"])
        console.print(f"warning: training is at {done} of {evaluated['iterations']} iterations", style="yellow")
    description = describe_choices(evaluated, choices, CONF)
    report = audit(mechanism, setting, **config["audit"])
    result: dict[str, Any] = {
        **description,
        "config_hash": config_hash(evaluated),
        **provenance(),
        "published": None if elsewhere else published_dict(description),
        "checkpoint": None if path is None else str(path),
        "trained": None if checkpoint is None else origin(checkpoint["run"]),
        "train": None if checkpoint is None else train_summary(checkpoint),
        "audit": report.as_dict(),
        "optimal_revenue": setting.optimal_revenue,
    }
    write_json(folder / RESULT, result)
    show_result(console, result, setting.optimal_revenue)
    console.print(f"audited in {report.seconds:.0f} s; written to {shown(folder) / RESULT}", soft_wrap=True)


def origin(run: dict[str, Any]) -> dict[str, Any]:
    """Where a trained mechanism comes from: its setting, and the commit, command and hardware of its training."""
    return {"setting": run["choices"]["setting"], "config_hash": run["config_hash"], **run.get("origin", {})}


@hydra.main(config_path=str(CONF), config_name="evaluate", version_base="1.3")
def main(config: DictConfig) -> None:
    """Hydra's entry."""
    evaluate(config)


if __name__ == "__main__":
    run_script(main, CONF, "evaluate", usage=__doc__)
