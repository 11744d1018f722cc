"""What the root scripts share. The only package that knows Hydra.

It must not import torch: `--help` and a mistyped override answer at once.
"""

from truthful.app.building import (
    audited_budget,
    build,
    build_constraints,
    build_mechanism,
    build_trained,
    check_split,
    describe_choices,
    pin_data,
    plain,
    whole_number,
)
from truthful.app.cards import card_head, card_path
from truthful.app.mistakes import INTERRUPTED, answer_mistakes, check_keys, run_script, stop
from truthful.app.runs import Run, alone_in, current_choices, multirun_name, open_run, save_configuration, shown

__all__ = [
    "INTERRUPTED",
    "Run",
    "alone_in",
    "answer_mistakes",
    "audited_budget",
    "build",
    "build_constraints",
    "build_mechanism",
    "build_trained",
    "card_head",
    "card_path",
    "check_keys",
    "check_split",
    "current_choices",
    "describe_choices",
    "multirun_name",
    "open_run",
    "pin_data",
    "plain",
    "run_script",
    "save_configuration",
    "shown",
    "stop",
    "whole_number",
]
