"""Upper bounds on what any truthful auction can earn, and optima of finite settings. docs/bounds.md derives them."""

from truthful.bounds.bound import (
    CONFIDENCE,
    Bound,
    BoundMethod,
    FlowNetworks,
    FlowTables,
    LinearProgram,
    SingleItem,
    Tightest,
)
from truthful.bounds.finite import FiniteOptimum, LinearProgramAuction, optimal_finite, optimal_table
from truthful.bounds.inequality import NoBound
from truthful.bounds.program import Bracket, bracket, upper_bound

__all__ = [
    "CONFIDENCE",
    "Bound",
    "BoundMethod",
    "Bracket",
    "FiniteOptimum",
    "FlowNetworks",
    "FlowTables",
    "LinearProgram",
    "LinearProgramAuction",
    "NoBound",
    "SingleItem",
    "Tightest",
    "bracket",
    "optimal_finite",
    "optimal_table",
    "upper_bound",
]
