"""Laws of single values."""

from truthful.laws.base import Law
from truthful.laws.discrete import Discrete
from truthful.laws.distribution import Distribution
from truthful.laws.exponential import Exponential
from truthful.laws.piecewise import PiecewiseUniform
from truthful.laws.uniform import Uniform

__all__ = ["Discrete", "Distribution", "Exponential", "Law", "PiecewiseUniform", "Uniform"]
