"""Hyper-parameter search for two objectives: revenue, and the regret that an audit finds.

The only package that knows optuna.
"""

from truthful.study.front import Finished, finished, show_front
from truthful.study.picture import save_front
from truthful.study.pruning import Audited, Pruning, audits
from truthful.study.space import Axis, Choice, Interval, Whole
from truthful.study.trials import Claim, Outcome, Stage, Trials

__all__ = [
    "Audited",
    "Axis",
    "Choice",
    "Claim",
    "Finished",
    "Interval",
    "Outcome",
    "Pruning",
    "Stage",
    "Trials",
    "Whole",
    "audits",
    "finished",
    "save_front",
    "show_front",
]
