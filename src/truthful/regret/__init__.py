"""Regret modes: what training minimises, and the searches behind them."""

from truthful.regret.ascent import GradientAscent
from truthful.regret.base import Begun, Found, RegretMode, Search
from truthful.regret.climbing import ClimbingRegret
from truthful.regret.combined import BetterOf, Curriculum, Mixture, Reciprocal
from truthful.regret.misreporter import Misreporter
from truthful.regret.none import NoRegret
from truthful.regret.probing import ProbingRegret
from truthful.regret.quasi_newton import QuasiNewton
from truthful.regret.searched import SearchedRegret
from truthful.regret.slope import SlopeRegret
from truthful.regret.starts import NearbyStart, RandomStart, TruthfulStart
from truthful.regret.steps import AdamStep, GradientStep, NormalisedStep, RandomLength, SignStep

__all__ = [
    "AdamStep",
    "Begun",
    "BetterOf",
    "ClimbingRegret",
    "Curriculum",
    "Found",
    "GradientAscent",
    "GradientStep",
    "Misreporter",
    "Mixture",
    "NearbyStart",
    "NoRegret",
    "NormalisedStep",
    "ProbingRegret",
    "QuasiNewton",
    "RandomLength",
    "RandomStart",
    "Reciprocal",
    "RegretMode",
    "Search",
    "SearchedRegret",
    "SignStep",
    "SlopeRegret",
    "TruthfulStart",
]
