"""Bounds of truthful revenue, and optima of discretised settings."""

from truthful.bounds.finite import FiniteOptimum, LinearProgramAuction, optimal_finite, optimal_table
from truthful.bounds.program import Bracket, bracket, upper_bound

__all__ = [
    "Bracket",
    "FiniteOptimum",
    "LinearProgramAuction",
    "bracket",
    "optimal_finite",
    "optimal_table",
    "upper_bound",
]
