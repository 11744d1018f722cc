"""What tables and networks of flows have in common: how they are made small."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from truthful.shapes import Float

Progress = Callable[[float], None]
"""Told which share is done."""


def descend(
    parameters: Iterable[Tensor],
    bound: Callable[[], Float[Tensor, ""]],
    iterations: int,
    rate: float,
    memory: float,
    progress: Progress,
) -> None:
    """Adam on unbiased estimates of a bound.

    Args:
        parameters: what is changed.
        bound: draws an estimate.
        iterations: how many.
        rate: Adam's learning rate at the start; it falls to 0 with a cosine.
        memory: Adam's second beta.
        progress: told which share is done.
    """
    optimiser = torch.optim.Adam(parameters, lr=rate, betas=(0.9, memory))
    for k in range(iterations):
        optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * k / iterations))
        loss = bound()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        progress((k + 1) / iterations)
