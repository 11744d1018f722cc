"""Upper bounds on what any truthful auction can earn. docs/bounds.md derives them."""

from truthful.bounds.bound import CONFIDENCE, Bound, BoundMethod, FlowNetworks, FlowTables, Tightest
from truthful.bounds.inequality import NoBound

__all__ = ["CONFIDENCE", "Bound", "BoundMethod", "FlowNetworks", "FlowTables", "NoBound", "Tightest"]
