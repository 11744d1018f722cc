"""Duals: the price of regret."""

from truthful.duals.ascent import Ascent
from truthful.duals.augmented_lagrangian import AugmentedLagrangian
from truthful.duals.base import Dual
from truthful.duals.budget import Budget

__all__ = ["Ascent", "AugmentedLagrangian", "Budget", "Dual"]
