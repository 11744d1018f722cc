"""Revenue of several auctions on the same profiles, with those whose revenue is known exactly as control variates."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.auction import revenue
from truthful.auditing.earnings import fresh_profiles
from truthful.mechanisms import Mechanism
from truthful.settings import Setting
from truthful.shapes import Float
from truthful.streams import Stream

WRONG = 6.0
"""A mean that is more standard errors than this from what is called exact shows that one of the two is wrong ..."""
ROUNDING = 1e-6
"""... beyond rounding, as a share of the largest value: revenue is computed in float32."""
PROFILES_A_CONTROL = 50
"""With fewer profiles for each control there are none."""
RELATIVE_RANK = 1e-9
"""Directions in which the controls vary by less than this share of their largest variance are left out."""


@dataclass(frozen=True)
class Compared:
    """Expected revenue of one auction, from truthful bids."""

    exact: float | None
    """By a formula or a quadrature, where one is known."""
    mean: float
    """Over the profiles."""
    standard_error: float
    controlled: float
    """The mean, corrected by how far the means of the auctions with exact revenue are off on the same profiles."""
    controlled_se: float
    """Its standard error; 0 where nothing is left to chance."""


@torch.no_grad()
def compare_revenue(
    mechanisms: Mapping[str, Mechanism],
    setting: Setting,
    profiles: int,
    seed: int,
    progress: Callable[[float], None],
) -> dict[str, Compared]:
    """Revenue of each mechanism on the profiles that an audit with this seed would measure revenue on.

    Args:
        mechanisms: by name, each of the setting's shape; left as they are.
        setting: gives the values.
        profiles: how many, at least 2; of observed auctions, as many as there are.
        seed: of the profiles.
        progress: told which share is done.

    Returns:
        By name. The regression of an auction on the controls is fitted to the same profiles, which biases the
        controlled estimate by a share of 1/profiles of its correction.

    Raises:
        ValueError: too few profiles, or what a mechanism calls its exact revenue is not what it earns.
    """
    if profiles < 2:
        raise ValueError(f"profiles must be at least 2, got {profiles}")
    exact = {name: mechanism.exact_revenue(setting) for name, mechanism in mechanisms.items()}
    quick = [copy.deepcopy(mechanism).float().surrogate() for mechanism in mechanisms.values()]
    parts, done, planned = [], 0, setting.part(Stream.AUDIT).at_most(profiles)
    for values in fresh_profiles(setting, profiles, seed, Stream.AUDIT):
        parts.append(torch.stack([revenue(mechanism(values)).double() for mechanism in quick], 1))
        done += len(values)
        progress(done / planned)
    earned = torch.cat(parts)
    mean = earned.mean(0)
    centred = earned - mean
    error = (centred.square().sum(0) / (done * (done - 1))).sqrt()
    known = [k for k, number in enumerate(exact.values()) if number is not None]
    truth = torch.tensor([number for number in exact.values() if number is not None], dtype=torch.float64)
    off = mean[known] - truth
    names = [name for name, number in exact.items() if number is not None]
    for name, gap, one in zip(names, off.tolist(), error[known].tolist(), strict=True):
        if abs(gap) > WRONG * one + ROUNDING * float(setting.high.max()):
            raise ValueError(
                f"the exact revenue of {name} is off its mean over {done} profiles by {gap:.3g}, of which one standard "
                f"error is {one:.3g}: one of the two is wrong"
            )
    if done < PROFILES_A_CONTROL * len(known):
        known, off = [], off[:0]
    slopes, rank = _regression(centred[:, known], centred)
    corrected = mean - off @ slopes
    left = (centred - centred[:, known] @ slopes).square().sum(0)
    left_error = (left / (done * (done - 1 - rank))).sqrt()
    return {
        name: Compared(number, float(mean[k]), float(error[k]), float(corrected[k]), float(left_error[k]))
        if number is None
        else Compared(number, float(mean[k]), float(error[k]), number, 0.0)
        for k, (name, number) in enumerate(exact.items())
    }


def _regression(controls: Float[Tensor, "b c"], earned: Float[Tensor, "b k"]) -> tuple[Float[Tensor, "c k"], int]:
    """Least squares, 0 where the controls do not vary; and the rank of the controls."""
    variances, axes = torch.linalg.eigh(controls.T @ controls)
    kept = variances > RELATIVE_RANK * variances.max() if len(variances) else variances > 0
    axes = axes[:, kept]
    slopes: Tensor = (axes / variances[kept]) @ (axes.T @ (controls.T @ earned))
    return slopes, int(kept.sum())
