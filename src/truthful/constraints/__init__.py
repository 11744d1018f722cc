"""Constraints on outcomes beside truthfulness: fairness, diversity, whatever people prefer."""

from truthful.constraints.base import Constraint
from truthful.constraints.entropy import Entropy
from truthful.constraints.preference import Preference
from truthful.constraints.quota import Quota
from truthful.constraints.total_variation import TotalVariation

__all__ = ["Constraint", "Entropy", "Preference", "Quota", "TotalVariation"]
