"""Regret one step from the truth, the step's length drawn anew: the multiscale mode."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.mechanisms.base import Mechanism
from truthful.regret.ascent import gradient_at_truth
from truthful.regret.base import RegretMode, Run, check_sufficiency, directly
from truthful.settings.base import Setting
from truthful.shapes import Float


class MultiscaleRegret(RegretMode):
    """relu of the gain at one step along the deviator's gradient at the truth, of a length drawn for each sample.

    A fixed length teaches a network to be honest at that distance and nowhere else; a random one leaves no such place.
    The length is reach * s^power of the support's width, s ~ U(0, 1), along the gradient in units of the width,
    normalised; then the projection. The search costs nothing but a gradient of the truthful outcome.

    Args:
        reach: longest step, as a share of the support's width.
        power: 1 for lengths uniform up to `reach`, more for shorter ones.
        assume_sufficient: use it although local incentive compatibility is not known to suffice for the setting.
    """

    local = True
    evaluations = 1
    starts_at_truth = True

    def __init__(self, reach: float, power: float, assume_sufficient: bool) -> None:
        super().__init__()
        for name, number in (("reach", reach), ("power", power)):
            if not 0 < number < math.inf:
                raise ValueError(f"regret.{name} must be a positive number, got {number!r}")
        self.reach, self.power, self.assume_sufficient = reach, power, assume_sufficient

    def prepare(self, setting: Setting, sample: Float[Tensor, "s n m"] | None, generator: torch.Generator) -> None:
        """Check the preconditions."""
        if not self.assume_sufficient:
            check_sufficiency(setting)

    def begin(
        self, setting: Setting, values: Float[Tensor, "b n m"], rows: slice | None, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """The lengths of the steps, as shares of the width."""
        uniform = torch.rand(values.shape[:-1], generator=generator, dtype=values.dtype)
        return (self.reach * uniform.pow(self.power).to(values.device),)

    def find(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n m"],
        begun: tuple[Tensor, ...],
        truthful: Outcome | None = None,
        run: Run = directly,
    ) -> Float[Tensor, "*b n m"]:
        """One step from the truth."""
        assert truthful is not None
        low, high = setting.bounds(values)
        slope = gradient_at_truth(values, truthful) * (high - low)
        size = slope.square().sum(-1, keepdim=True).sqrt()
        move = begun[0].unsqueeze(-1) * (high - low) * slope / (size + 1e-9)
        return setting.project(values.detach() + move)
