"""What a study varies: one axis a key, each with the values that it can have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from truthful.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

DIGITS = 4
"""Of a number that a study chooses: more say nothing, and folders are named after them."""


class Axis(ABC):
    """The values that a key can have."""

    @abstractmethod
    def distribution(self) -> BaseDistribution:
        """As optuna has it."""

    @abstractmethod
    def extremes(self) -> list[str]:
        """Values that have to work if all are to, as they are typed."""

    @abstractmethod
    def typed(self, value: Any) -> str:
        """A value of the distribution as it is typed."""

    @abstractmethod
    def place(self, default: Any) -> Any:
        """A value of the configuration as one of the distribution; None if the axis does not have it."""


@dataclass(frozen=True)
class Interval(Axis):
    """All numbers between two; on a logarithmic scale if asked for."""

    low: float
    high: float
    log: bool

    def __post_init__(self) -> None:
        _check_ends(self.low, self.high, self.log)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log)

    def extremes(self) -> list[str]:
        return [self.typed(self.low), self.typed(self.high)]

    def typed(self, value: float) -> str:
        rounded = float(f"{value:.{DIGITS}g}")
        return repr(min(max(rounded, self.low), self.high))

    def place(self, default: Any) -> float | None:
        number = type(default) in (int, float) and self.low <= default <= self.high
        return float(default) if number else None


@dataclass(frozen=True)
class Whole(Axis):
    """Every `step`-th whole number between two, both included; on a logarithmic scale if asked for."""

    low: int
    high: int
    step: int
    log: bool

    def __post_init__(self) -> None:
        _check_ends(float(self.low), float(self.high), self.log)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, log=self.log, step=self.step)

    def extremes(self) -> list[str]:
        return [str(self.low), str(self.high)]

    def typed(self, value: int) -> str:
        return str(value)

    def place(self, default: Any) -> int | None:
        return default if type(default) is int and default in range(self.low, self.high + 1, self.step) else None


@dataclass(frozen=True)
class Choice(Axis):
    """A few values, without an order."""

    options: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.options)) < 2:
            raise UserError(f"a choice needs at least two different options, got {', '.join(self.options)}")

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.options)

    def extremes(self) -> list[str]:
        return list(self.options)

    def typed(self, value: str) -> str:
        return value

    def place(self, default: Any) -> str | None:
        return str(default) if str(default) in self.options else None


def _check_ends(low: float, high: float, log: bool) -> None:
    if not low < high:
        raise UserError(f"a range must go up, got one from {low:g} to {high:g}")
    if log and low <= 0:
        raise UserError(f"a logarithmic range must be above 0, got one from {low:g} to {high:g}")
