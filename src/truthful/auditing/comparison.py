"""Revenue of several auctions on the same profiles, with those whose revenue is known exactly as control variates."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.auction import revenue
from truthful.auditing.earnings import FIRST_STEP
from truthful.auditing.instances import ROWS
from truthful.mechanisms import Mechanism
from truthful.settings import Setting
from truthful.shapes import Float
from truthful.streams import Stream, generator

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
        profiles: how many, at least 2; as many as there are of observed auctions.
        seed: of the profiles.
        progress: told which share is done.

    Returns:
        By name. The regression of an auction on the controls is fitted to the same profiles, which biases the
        controlled estimate by a share of 1/profiles of its correction.
    """
    if profiles < 2:
        raise ValueError(f"profiles must be at least 2, got {profiles}")
    law, exact = setting.part(Stream.AUDIT), {name: one.exact_revenue(setting) for name, one in mechanisms.items()}
    profiles = setting.at_most(profiles)
    quick = [copy.deepcopy(mechanism).float().surrogate() for mechanism in mechanisms.values()]
    parts = []
    for k, first in enumerate(range(0, profiles, ROWS)):
        size = min(ROWS, profiles - first)
        values = law.sample(size, generator(seed, Stream.AUDIT, FIRST_STEP + k))
        parts.append(torch.stack([revenue(mechanism(values)).double() for mechanism in quick], 1))
        progress((first + size) / profiles)
    earned = torch.cat(parts)
    known = [k for k, name in enumerate(mechanisms) if exact[name] is not None]
    truth = torch.tensor([number for number in exact.values() if number is not None], dtype=torch.float64)
    off = earned.mean(0)[known] - truth.to(earned)
    centred = earned - earned.mean(0)
    slopes = _regression(centred[:, known], centred)
    corrected = earned.mean(0) - off @ slopes
    left = centred - centred[:, known] @ slopes
    found = {}
    for k, name in enumerate(mechanisms):
        single = exact[name]
        found[name] = Compared(
            single,
            float(earned[:, k].mean()),
            float(centred[:, k].square().mean().sqrt()) / math.sqrt(profiles),
            float(corrected[k]) if single is None else single,
            float(left[:, k].square().mean().sqrt()) / math.sqrt(profiles) if single is None else 0.0,
        )
    return found


def _regression(controls: Float[Tensor, "b c"], earned: Float[Tensor, "b k"]) -> Float[Tensor, "c k"]:
    """Least squares; 0 where the controls do not vary."""
    covariance = controls.T @ controls
    slopes: Tensor = torch.linalg.pinv(covariance, rtol=RELATIVE_RANK, hermitian=True) @ (controls.T @ earned)
    return slopes
