"""Everything that is known of a setting: the optimum or a bound, every classical auction, and given runs.

python baselines.py setting=a                                writes results/baselines/a.json, too
python baselines.py setting=a runs=[outputs/a_climbing]      a trained auction beside them
python baselines.py setting=b mechanisms=[vcg,ama]           some of them
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from truthful.app import (
    answer_mistakes,
    build,
    build_mechanism,
    build_trained,
    card_head,
    card_path,
    check_keys,
    check_split,
    pin_data,
    plain,
    run_script,
    shown,
    whole_number,
)
from truthful.ceilings import find_bound, setting_key
from truthful.errors import UserError, nearest
from truthful.results import CHECKPOINT, RESULT, provenance, read_json, write_json

if TYPE_CHECKING:
    from truthful.mechanisms import Mechanism
    from truthful.settings import Setting

ROOT = Path(__file__).resolve().parent
CONF = ROOT / "conf"
BOUNDS = ROOT / "results" / "bounds"
CARDS = ROOT / "results" / "baselines"


@answer_mistakes
def baselines(composed: DictConfig) -> None:
    """Build what fits, measure, write the card, show it."""
    check_keys(composed, CONF, "baselines")
    config = plain(composed)
    for key, least in (("seed", 0), ("samples", 2)):
        whole_number(config, key, least)

    from rich.console import Console

    from truthful.auditing.comparison import compare_revenue
    from truthful.console import show_audit_progress, show_baselines, show_setting
    from truthful.streams import Stream

    console = Console()
    pin_data(config["setting"])
    setting: Setting = build(config, "setting")
    head, start = card_head(config, CONF), time.perf_counter()
    show_setting(console, head, setting)
    built, refused = classical(config, setting)
    regrets: dict[str, dict[str, Any] | None] = {}
    for folder in config["runs"] if isinstance(config["runs"], list) else [config["runs"]]:
        mechanism, audit = trained(Path(str(folder)), config, setting)
        label = unused(Path(str(folder)).name, built)
        built[label], regrets[label] = mechanism, audit
    if not built:
        raise UserError(f"there is no auction to compare: {'; '.join(refused.values()) or 'none was asked for'}")
    with show_audit_progress(console) as tell:
        try:
            found = compare_revenue(
                built, setting, config["samples"], config["seed"], lambda share: tell("revenue", share)
            )
        except ValueError as error:
            raise UserError(str(error)) from error
    optimum = setting.optimum
    card: dict[str, Any] = {
        **head,
        "config": config,
        "optimum": None if optimum is None else {"revenue": optimum.revenue, "source": optimum.source},
        "upper_bound": find_bound(BOUNDS, config["setting"]),
        "auctions": [
            {
                "name": label,
                **asdict(found[label]),
                "strategyproof": mechanism.theorem,
                "fitted": mechanism.fitted,
                "audit": regrets.get(label),
            }
            for label, mechanism in built.items()
        ],
        "refused": refused,
        "samples": setting.part(Stream.AUDIT).at_most(config["samples"]),
        "seconds": time.perf_counter() - start,
        **provenance(),
    }
    path = card_path(Path(str(config["out"] or CARDS)), head)
    write_json(path, card)
    show_baselines(console, card)
    console.print(f"{card['seconds']:.0f} s; {shown(path)}", soft_wrap=True)


def classical(config: dict[str, Any], setting: Setting) -> tuple[dict[str, Mechanism], dict[str, str]]:
    """The auctions that fit a setting and need no training, by name, and why the others do not fit.

    One that was asked for by name has to fit.
    """
    files = {path.stem: path for path in sorted((CONF / "mechanism").glob("*.yaml"))}
    asked = config["mechanisms"]
    if asked is not None and not isinstance(asked, list):
        raise UserError(f"mechanisms must be a list such as mechanisms=[vcg,ama], got {asked!r}")
    for name in asked or ():
        if name not in files:
            meant = nearest(str(name), files)
            raise UserError(f"there is no mechanism {name!r}{f'; did you mean {meant}?' if meant else ''}")
    built, refused = {}, {}
    for name in files if asked is None else asked:
        node = OmegaConf.load(files[name])
        if "defaults" in node or "mechanism" in node:  # an activation, a recipe: what belongs to a run
            if asked is not None:
                raise UserError(f"mechanism {name} has to be trained first: name its run in runs=[...]")
            continue
        try:
            built[name] = build_mechanism({"mechanism": plain(node)}, setting)
        except UserError as error:
            if asked is not None:
                raise
            refused[name] = str(error)
    return built, refused


def trained(folder: Path, config: dict[str, Any], setting: Setting) -> tuple[Mechanism, dict[str, Any] | None]:
    """A run's auction, and its audit if that was on this setting."""
    from truthful import checkpoints

    checkpoint = checkpoints.load(folder / CHECKPOINT)
    own = checkpoint["run"]["config"]
    check_split(own["setting"], config["setting"])
    shape = build(own, "setting").shape
    if shape != setting.shape:
        raise UserError(f"{shown(folder)} was trained for {shape}, which does not fit {setting.shape}")
    _, mechanism = build_trained(checkpoint, {**own, "setting": config["setting"]})
    audit = None
    if (folder / RESULT).exists() and setting_key(own["setting"]) == setting_key(config["setting"]):
        kept = ("tier", "search", "samples", "seed", "regret", "regret_se", "regret_sum", "regret_max")
        audit = {key: read_json(folder / RESULT)["audit"][key] for key in kept}
    return mechanism, audit


def unused(name: str, names: Collection[str]) -> str:
    """The name, numbered if there is one like it."""
    return next(one for k in count(1) if (one := name if k == 1 else f"{name}_{k}") not in names)


@hydra.main(config_path=str(CONF), config_name="baselines", version_base="1.3")
def main(config: DictConfig) -> None:
    """Hydra's entry."""
    baselines(config)


if __name__ == "__main__":
    run_script(main, CONF, "baselines", usage=__doc__)
