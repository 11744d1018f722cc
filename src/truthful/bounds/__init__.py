"""Bounds of truthful revenue, and optima of discretised settings."""

from truthful.bounds.program import Bracket, bracket, upper_bound

__all__ = ["Bracket", "bracket", "upper_bound"]
