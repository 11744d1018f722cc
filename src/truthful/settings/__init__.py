"""Settings: who values what."""

from truthful.settings.base import Setting
from truthful.settings.box import UniformBox
from truthful.settings.common_factor import CommonFactor
from truthful.settings.contextual import ContinuousContexts, DiscreteContexts
from truthful.settings.empirical import Empirical
from truthful.settings.independent import Independent
from truthful.settings.optimum import Optimum
from truthful.settings.private_budgets import PrivateBudgets
from truthful.settings.simplex import Simplex

__all__ = [
    "CommonFactor",
    "ContinuousContexts",
    "DiscreteContexts",
    "Empirical",
    "Independent",
    "Optimum",
    "PrivateBudgets",
    "Setting",
    "Simplex",
    "UniformBox",
]
