"""Search hyper-parameters for two objectives at once: more revenue, and less regret under an audit.

python study.py study=climbing                      a study by name; again: goes on with it, then shows the front
python study.py study=climbing study.trials=60 study.workers=2
python study.py study=climbing setting=b            any other override is for every trial
python study.py study=climbing 'rmax.end=tag(log,interval(1e-4,1e-3))' depth=2,3   ... or another range
python evaluate.py run=[<folders of the front>]     what was chosen, on fresh profiles
"""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from truthful.app import INTERRUPTED, check_keys, plain, run_script, stop
from truthful.app.composing import Composer
from truthful.app.help import group_help
from truthful.app.studies import Declaration, composing, read_declaration
from truthful.app.trying import Workers
from truthful.ceilings import best_truthful
from truthful.errors import UserError
from truthful.study import Stage, Trials, audits, finished, save_front, show_front

ROOT = Path(__file__).resolve().parent
CONF = ROOT / "conf"
AUCTIONS = ROOT / "results" / "baselines"
WIDTH = 400
"""Of the table at most: a terminal may be narrower, but half a number is none."""
PICTURE = "front.png"
"""In a study's folder."""


def main() -> None:
    """Check the study, do what is left of it, show its front."""
    declaration = read_declaration(sys.argv[1:], CONF)
    if find_spec("optuna") is None:
        raise UserError("optuna is not installed: pip install its line in requirements-extra.txt")
    with composing(CONF) as compose:
        first = declaration.first(*compose(list(declaration.fixed.values())))
        if not declaration.folder.exists():
            check_corners(declaration, compose)
        trials = Trials(declaration.folder, declaration.axes, declaration.declared, first)
        sys.stdout.write(f"{summary(trials, declaration)}\n")
        signal.signal(signal.SIGTERM, interrupted)
        try:
            Workers(declaration, trials, compose, ROOT / "train.py").run()
        except KeyboardInterrupt:
            stop("interrupted; the same command goes on with what is left", INTERRUPTED)
    typed = () if first is None else tuple(f"{key}={axis.typed(first[key])}" for key, axis in declaration.axes.items())
    show(declaration, trials, typed)


def check_corners(declaration: Declaration, compose: Composer) -> None:
    """Build what is at the ends of the space, so that a mistake is answered before any trial."""
    configs = []
    for corner in declaration.corners():
        composed, _ = compose(corner)
        check_keys(composed, CONF, "config")
        configs.append((corner, plain(composed)))

    from rich.console import Console

    from train import build_module

    for corner, config in configs:
        try:
            build_module(config, Console(quiet=True))
        except UserError as error:
            raise UserError(f"{error} (at {' '.join(corner[len(declaration.fixed) :])})") from error


def show(declaration: Declaration, trials: Trials, recipe: tuple[str, ...]) -> None:
    """The front as a table and a picture, and what to do with it."""
    from rich.console import Console

    console, folder = Console(width=WIDTH), declaration.folder
    console.print(summary(trials, declaration), soft_wrap=True)
    complete = finished(trials, recipe)
    if not complete:
        raise UserError(f"no trial of {folder} is complete")
    content: dict[str, Any] = complete[0].content
    rival = None if content["setting_overridden"] else best_truthful(AUCTIONS).get(content["setting"])
    show_front(console, complete, rival)
    stopped = [audits(outcome.folder) for outcome in trials.outcomes() if outcome.stage is Stage.PRUNED]
    last = [found[max(found)] for found in stopped if found]
    save_front(complete, last, rival, f"study {declaration.name}, setting {content['setting']}", folder / PICTURE)
    runs = ",".join(str(one.outcome.folder) for one in complete if one.best)
    for line in (
        f"{folder / PICTURE} has all trials in one picture",
        "these were chosen by the profiles that they were audited on, and look better there than they are; fresh ones:",
        f"python evaluate.py run=[{runs}]",
    ):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def summary(trials: Trials, declaration: Declaration) -> str:
    """How far the study is, in a line."""
    outcomes = trials.outcomes()
    counts = [(sum(outcome.stage is stage for outcome in outcomes), stage.value) for stage in Stage]
    parts = [f"{count} {words}" for count, words in counts if count]
    left = max(0, declaration.trials - len(outcomes))
    parts += [f"{left} to come"] if left else []
    return f"{max(len(outcomes), declaration.trials)} trials in {trials.folder}: {', '.join(parts)}"


def interrupted(*_: object) -> NoReturn:
    """What SIGTERM does: the same as Ctrl-C."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    run_script(main, CONF, "config", usage=f"{__doc__.strip()}\n\n{group_help(CONF, CONF / 'study')}")
