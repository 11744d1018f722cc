"""Settings: who values what."""

from truthful.settings.base import Setting
from truthful.settings.box import UniformBox
from truthful.settings.empirical import Empirical
from truthful.settings.optimum import Optimum
from truthful.settings.union import UniformUnion

__all__ = ["Empirical", "Optimum", "Setting", "UniformBox", "UniformUnion"]
