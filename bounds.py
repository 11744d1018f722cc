"""Bound what any truthful auction can earn in a setting, and keep it for training and reports.

python bounds.py setting=a                        writes results/bounds/a.json
python bounds.py setting=a setting.high=2         any setting; the file's name then has a digest of it
python bounds.py -m setting=a,d,e                 several
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from truthful.app import (
    answer_mistakes,
    build,
    card_head,
    card_path,
    check_keys,
    plain,
    run_script,
    shown,
    whole_number,
)
from truthful.ceilings import rounded_up
from truthful.errors import UserError
from truthful.results import provenance, write_json

if TYPE_CHECKING:
    from truthful.bounds import Bound
    from truthful.settings import Setting

CONF = Path(__file__).resolve().parent / "conf"
CARDS = Path(__file__).resolve().parent / "results" / "bounds"


@answer_mistakes
def bounds(composed: DictConfig) -> None:
    """Compute, write the card, show it."""
    check_keys(composed, CONF, "bounds")
    config = plain(composed)
    for key, least in (("seed", 0), ("threads", 1)):
        whole_number(config, key, least)

    import torch
    from rich.console import Console

    from truthful.bounds import CONFIDENCE, NoBound
    from truthful.console import show_audit_progress, show_setting

    torch.set_num_threads(config["threads"])
    console = Console()
    setting: Setting = build(config, "setting")
    head = card_head(config, CONF)
    show_setting(console, head, setting)
    method = build(config, "bound")
    start = time.perf_counter()
    try:
        with show_audit_progress(console) as tell:
            found: Bound = method(setting, config["seed"], lambda share: tell("bound", share))
    except NoBound as reason:
        raise UserError(f"there is no bound for setting={head['setting']}: {reason}") from reason
    path = card_path(Path(str(config["out"] or CARDS)), head)
    optimum = setting.optimum
    card: dict[str, Any] = {
        **head,
        "config": {"setting": config["setting"], "bound": config["bound"], "seed": config["seed"]},
        "bound": {**asdict(found), "confidence": CONFIDENCE},
        "optimal_revenue": None if optimum is None else optimum.revenue,
        "seconds": time.perf_counter() - start,
        **provenance(),
    }
    write_json(path, card)
    console.print(
        f"no truthful auction earns more than {rounded_up(found.limit)}: {found.method}; estimate "
        f"{found.estimate:.5f} ± {found.standard_error:.5f}, one-sided {CONFIDENCE:.0%} limit",
        soft_wrap=True,
    )
    if optimum is not None:
        console.print(f"the optimum is {optimum.revenue:.6f} ({optimum.source})", soft_wrap=True)
    console.print(f"{card['seconds']:.0f} s; {shown(path)}", soft_wrap=True)


@hydra.main(config_path=str(CONF), config_name="bounds", version_base="1.3")
def main(config: DictConfig) -> None:
    """Hydra's entry."""
    bounds(config)


if __name__ == "__main__":
    run_script(main, CONF, "bounds", usage=__doc__)
