"""Regret modes: what training minimises, and the searches behind them."""

from truthful.regret.ascent import GradientAscent
from truthful.regret.base import Found, RegretMode, Search
from truthful.regret.multiscale import MultiscaleRegret
from truthful.regret.searched import SearchedRegret
from truthful.regret.starts import RandomStart, TruthfulStart
from truthful.regret.steps import AdamStep, GradientStep

__all__ = [
    "AdamStep",
    "Found",
    "GradientAscent",
    "GradientStep",
    "MultiscaleRegret",
    "RandomStart",
    "RegretMode",
    "Search",
    "SearchedRegret",
    "TruthfulStart",
]
