"""Laws of single values."""

from truthful.laws.base import Law
from truthful.laws.uniform import Uniform

__all__ = ["Law", "Uniform"]
