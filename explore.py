"""Write one HTML page to look into an auction of one or two items: maps, the best lie, utility along a line.

python explore.py run=outputs/<run>               writes outputs/<run>/explore.html; open it from disk
python explore.py run=outputs/<run> out=a.html
python explore.py mechanism=menu setting=d        an auction that needs no training
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from truthful.app import (
    answer_mistakes,
    build,
    build_mechanism,
    build_trained,
    check_keys,
    current_choices,
    pin_data,
    plain,
    run_script,
    shown,
)
from truthful.errors import UserError
from truthful.results import CHECKPOINT, RESULT, provenance, read_json, write_text

if TYPE_CHECKING:
    from truthful.mechanisms import Mechanism
    from truthful.settings import Setting

CONF = Path(__file__).resolve().parent / "conf"


@dataclass(frozen=True)
class Subject:
    """What the page is about."""

    choices: dict[str, Any]
    setting: Setting
    mechanism: Mechanism
    origin: dict[str, Any]
    result: dict[str, Any] | None
    page: Path
    """Where it is written, unless out= says otherwise."""


@answer_mistakes
def explore(composed: DictConfig) -> None:
    """Read the auction and its result, write the page, say where."""
    check_keys(composed, CONF, "explore")
    given = [key for key in ("run", "mechanism") if composed.get(key) is not None]
    if len(given) != 1:
        raise UserError(
            "explore.py needs run=<folder>, or mechanism=<name> with setting=<name>; got "
            + (" and ".join(given) or "neither")
        )
    if OmegaConf.is_list(composed.run):
        raise UserError(f"run= takes one folder, got {len(composed.run)}")
    if composed.run is not None and composed.get("setting") is not None:
        raise UserError("run=<folder> has its own setting; leave out setting=")

    from rich.console import Console

    from truthful.console import describe
    from truthful.explore import explore_page, facts

    subject = trained(Path(str(composed.run))) if composed.run is not None else named(composed)
    texts = facts(
        f"{subject.choices['mechanism']} at setting {subject.choices['setting']}",
        describe(subject.setting),
        subject.result,
        subject.origin,
        subject.mechanism.theorem,
        subject.setting.optimal_revenue,
    )
    try:
        page = explore_page(subject.mechanism, subject.setting, texts)
    except ValueError as error:
        raise UserError(str(error)) from error
    path = subject.page if composed.out is None else Path(str(composed.out))
    write_text(path, page)
    Console().print(f"{shown(path.absolute())}: {len(page) / 1e6:.2f} MB; open it in a browser", soft_wrap=True)


def trained(folder: Path) -> Subject:
    """The auction of a run folder, with its result if training has come to an end."""
    from truthful import checkpoints

    checkpoint = checkpoints.load(folder / CHECKPOINT)
    setting, mechanism = build_trained(checkpoint)
    run = checkpoint["run"]
    completed, iterations = int(checkpoint["state_dict"]["completed"]), run["config"]["iterations"]
    training = f"{run['choices']['regret']}, {completed:,} of {iterations:,} iterations"
    result = read_json(folder / RESULT) if (folder / RESULT).exists() else None
    return Subject(
        run["choices"],
        setting,
        mechanism,
        {"training": training, **run.get("origin", {})},
        result,
        folder / "explore.html",
    )


def named(composed: DictConfig) -> Subject:
    """An auction that needs no training."""
    choices = current_choices()
    if choices["setting"] is None:
        raise UserError("mechanism=<name> needs a setting=<name>, too")
    try:
        config = plain(composed)
    except InterpolationKeyError:  # the network's depth belongs to a run
        raise UserError(f"mechanism={choices['mechanism']} has to be trained first: give run=<folder>") from None
    pin_data(config["setting"])
    setting = build(config, "setting")
    mechanism = build_mechanism(config, setting)
    page = Path(f"explore_{choices['mechanism']}_{choices['setting']}.html")
    return Subject(choices, setting, mechanism, provenance(), None, page)


@hydra.main(config_path=str(CONF), config_name="explore", version_base="1.3")
def main(config: DictConfig) -> None:
    """Hydra's entry."""
    explore(config)


if __name__ == "__main__":
    run_script(main, CONF, "explore", usage=__doc__)
