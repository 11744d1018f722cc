"""A gradient-free maximiser for a handful of prices."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from truthful.shapes import Float

GENERATIONS = 300


def maximise(
    objective: Callable[[Float[Tensor, "d"]], float],
    start: Float[Tensor, "d"],
    length: float,
    generator: torch.Generator,
    precision: float = 1e-4,
) -> Float[Tensor, "d"]:
    """The best point seen by CMA-ES (Hansen 2016, default parameters, without step-size damping tricks).

    Args:
        objective: to be maximised; need not be continuous.
        start: mean of the first generation, in float64.
        length: its standard deviation in each direction.
        generator: of the random points.
        precision: it ends when no direction's standard deviation is above this share of `length`.
    """
    d = len(start)
    size = 4 + int(3 * math.log(d)) + (d < 3) * 4
    half = size // 2
    weights = math.log(half + 0.5) - torch.arange(1, half + 1, dtype=torch.float64).log()
    weights /= weights.sum()
    effective = float(1 / (weights**2).sum())
    c_step = (effective + 2) / (d + effective + 5)
    damping = 1 + 2 * max(0.0, math.sqrt((effective - 1) / (d + 1)) - 1) + c_step
    c_path = (4 + effective / d) / (d + 4 + 2 * effective / d)
    c_one = 2 / ((d + 1.3) ** 2 + effective)
    c_many = min(1 - c_one, 2 * (effective - 2 + 1 / effective) / ((d + 2) ** 2 + effective))
    expected = math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))  # length of a standard normal vector

    mean, sigma = start.clone(), length
    covariance = torch.eye(d, dtype=torch.float64)
    path, step_path = torch.zeros_like(mean), torch.zeros_like(mean)
    best, best_seen = mean.clone(), objective(mean)
    for generation in range(1, GENERATIONS + 1):
        variances, axes = torch.linalg.eigh(covariance)
        spread = variances.clamp_min(1e-20).sqrt()
        normal = torch.randn(size, d, generator=generator, dtype=torch.float64)
        steps = (normal * spread) @ axes.T
        seen = torch.tensor([objective(mean + sigma * step) for step in steps], dtype=torch.float64)
        order = seen.argsort(descending=True)
        if float(seen[order[0]]) > best_seen:
            best_seen, best = float(seen[order[0]]), mean + sigma * steps[order[0]]
        steps = steps[order[:half]]
        move = weights @ steps
        mean = mean + sigma * move
        whitened = axes @ ((axes.T @ move) / spread)
        step_path = (1 - c_step) * step_path + math.sqrt(c_step * (2 - c_step) * effective) * whitened
        stalled = (
            float(step_path.norm()) / math.sqrt(1 - (1 - c_step) ** (2 * generation)) > (1.4 + 2 / (d + 1)) * expected
        )
        path = (1 - c_path) * path + (not stalled) * math.sqrt(c_path * (2 - c_path) * effective) * move
        covariance = (
            (1 - c_one - c_many) * covariance
            + c_one * (path.outer(path) + stalled * c_path * (2 - c_path) * covariance)
            + c_many * (steps.T * weights) @ steps
        )
        sigma *= math.exp(c_step / damping * (float(step_path.norm()) / expected - 1))
        if sigma * float(covariance.diagonal().max().sqrt()) < precision * length:
            break
    return best if best_seen >= objective(mean) else mean
