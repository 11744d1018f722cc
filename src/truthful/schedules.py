"""What changes over training as a function of progress alone: the regret budget R_max and the learning rate.

A schedule here has no state: its value at iteration t of T is computed from t/T, so a resumed run needs nothing
restored. One that audits correct has its state in buffers: `calibration.py`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable


class BudgetSchedule(ABC):
    """R_max: the allowed (sum of regret over bidders)/revenue, from `start` to `end`."""

    start: float
    end: float
    uses_audits = False
    """Whether R_max bounds audited regret: audits during training then correct what training is given."""

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """R_max for training's own regret after the share `progress` (0 to 1) of all iterations."""

    def next_correction(self, iteration: int, iterations: int) -> int:
        """After how many of all iterations, more than `iteration`, it is to be corrected next; the end: never."""
        return iterations

    def correct(  # noqa: B027
        self, progress: float, rate_left: float, training: float, pace: float, audit: Callable[[int], float]
    ) -> None:
        """Hear what training and an audit find.

        Args:
            progress: share of all iterations that are done.
            rate_left: what the learning rate has still to fall, as a share of the largest.
            training: geometric mean of what training's search found of late: (sum of regret)/revenue.
            pace: by how many times itself the multiplier would move over the whole training if the logarithms of that
                and of R_max differed by 1.
            audit: finds the same ratio on so many held-out profiles.
        """

    def metrics(self) -> dict[str, float]:
        """What there is to log beside its value."""
        return {}


class AnnealedBudget(BudgetSchedule):
    """R_max falls geometrically and reaches `end` after `fraction` of training (paper, section 2.4).

    Args:
        start: R_max at the first iteration.
        end: the final budget, at most `start`.
        fraction: share of training after which it is reached; 2/3 in the paper.
    """

    def __init__(self, start: float, end: float, fraction: float) -> None:
        _check_budget(start, end, fraction)
        self.start, self.end, self.fraction = start, end, fraction

    def __call__(self, progress: float) -> float:
        """R_max after the share `progress` of all iterations."""
        return self.start * math.exp(math.log(self.end / self.start) * min(1.0, progress / self.fraction))


class LinearBudget(BudgetSchedule):
    """R_max falls linearly and reaches `end` after `fraction` of training.

    Args:
        start: R_max at the first iteration.
        end: the final budget, at most `start`.
        fraction: share of training after which it is reached.
    """

    def __init__(self, start: float, end: float, fraction: float) -> None:
        _check_budget(start, end, fraction)
        self.start, self.end, self.fraction = start, end, fraction

    def __call__(self, progress: float) -> float:
        """R_max after the share `progress` of all iterations."""
        return self.start + (self.end - self.start) * min(1.0, progress / self.fraction)


class ConstantBudget(BudgetSchedule):
    """R_max is `end` throughout.

    Args:
        end: the budget.
    """

    def __init__(self, end: float) -> None:
        _check_budget(end, end, 1.0)
        self.start = self.end = end

    def __call__(self, progress: float) -> float:
        """R_max, whatever the progress."""
        return self.end


def _check_budget(start: float, end: float, fraction: float) -> None:
    if not 0 < end < math.inf or not 0 < start < math.inf:
        raise ValueError(f"rmax.start and rmax.end must be positive numbers, got start={start!r} and end={end!r}")
    if end > start:
        raise ValueError(f"rmax.end must not be above rmax.start, got start={start!r} and end={end!r}")
    if not 0 < fraction <= 1:
        raise ValueError(f"rmax.fraction must be above 0 and at most 1, got {fraction!r}")


class RateSchedule(ABC):
    """Factor on the network's learning rate. It never scales the step of a misreport."""

    decays: bool
    """Whether the rate falls during training."""

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """The factor after the share `progress` (0 to 1) of all iterations."""


class ConstantRate(RateSchedule):
    """The learning rate stays what it is."""

    decays = False

    def __call__(self, progress: float) -> float:
        """1, whatever the progress."""
        return 1.0


class CosineRate(RateSchedule):
    """Half a cosine from 1 down to `end`.

    Args:
        end: the factor at the end of training, from 0 to 1.
    """

    decays = True

    def __init__(self, end: float) -> None:
        if not 0 <= end <= 1:
            raise ValueError(f"lr_schedule.end must be from 0 to 1, got {end!r}")
        self.end = end

    def __call__(self, progress: float) -> float:
        """The factor after the share `progress` of all iterations."""
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * progress)) / 2


class WarmupRate(RateSchedule):
    """A linear rise from 0 during the first `fraction` of training, then the schedule `then` on the rest.

    Args:
        fraction: share of training that the rise takes, above 0 and below 1.
        then: what follows; it sees progress from 0 to 1 on the rest.
    """

    def __init__(self, fraction: float, then: RateSchedule) -> None:
        if not 0 < fraction < 1:
            raise ValueError(f"lr_schedule.fraction must be above 0 and below 1, got {fraction!r}")
        self.fraction, self.then = fraction, then
        self.decays = then.decays

    def __call__(self, progress: float) -> float:
        """The factor after the share `progress` of all iterations."""
        if progress < self.fraction:
            return progress / self.fraction
        return self.then((progress - self.fraction) / (1 - self.fraction))
