"""Scalar activations enclosed by a parabola, or by a line, over an interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from truthful.shapes import Float

NARROWEST = 1e-9
"""Intervals are widened to this half width: a secant needs one, and what holds on more holds on less."""
WIDE = 0.5
"""Half width from which a line is tried beside the parabola."""
CUBIC = 1 / (9 * math.sqrt(3))
"""max |s^3 - s| / 6 on [-1, 1]: the error of interpolation at -1, 0, 1 for a third derivative of 1."""


@dataclass(frozen=True)
class Relaxation:
    """phi(c + s) = middle + slope s + curvature l^2 +- error, where l is the linear part of s."""

    middle: Float[Tensor, "*b"]
    slope: Float[Tensor, "*b"]
    curvature: Float[Tensor, "*b"]
    error: Float[Tensor, "*b"]


Relax = Callable[[Tensor, Tensor, Tensor], Relaxation]
"""From the centre c, and bounds of the linear and of the remaining part of s, to an enclosure."""


def relax_tanh(centre: Float[Tensor, "*b"], first: Float[Tensor, "*b"], higher: Float[Tensor, "*b"]) -> Relaxation:
    """Enclose tanh over |s| <= D = first + higher.

    By the parabola through -D, 0 and D: its error is at most D^3 max |tanh'''| / (9 sqrt 3), with
    tanh''' = -2 (1 - w)(1 - 3 w), w = tanh^2, and |tanh'''| <= 2/3 for w >= 1/3. Where D is large also by a line, and
    the better one is taken.
    """
    radius = (first + higher).clamp_min_(NARROWEST)
    low, middle, high = _tanh(centre - radius), _tanh(centre), _tanh(centre + radius)
    slope = ((high - low) / (2 * radius)).clamp_(1e-300, 1.0)
    curvature = ((high + low) / 2 - middle) / radius.square()
    least = torch.maximum(low, -high).clamp_min_(0).square_()
    third = torch.maximum(2 * (1 - least) * (1 - 3 * least).abs_(), (least < 2 / 3) * (2 / 3))
    error = third.mul_(CUBIC) * radius.pow(3) + curvature.abs() * higher * (first + radius)
    wide = (radius > WIDE).flatten().nonzero()[:, 0]
    if len(wide):
        parts = [part.flatten()[wide] for part in (centre, low, high, slope)]
        line_middle, line_error = _line(*parts)
        better = line_error < error.flatten()[wide]
        wide = wide[better]
        middle.view(-1)[wide], error.view(-1)[wide] = line_middle[better], line_error[better]
        curvature.view(-1)[wide] = 0
    return Relaxation(middle, slope, curvature, error)


def relax_sigmoid(centre: Float[Tensor, "*b"], first: Float[Tensor, "*b"], higher: Float[Tensor, "*b"]) -> Relaxation:
    """Enclose the sigmoid, (1 + tanh(t/2)) / 2."""
    half = relax_tanh(centre / 2, first / 2, higher / 2)
    return Relaxation((1 + half.middle) / 2, half.slope / 4, half.curvature / 8, half.error / 2)


def relax_relu(centre: Float[Tensor, "*b"], first: Float[Tensor, "*b"], higher: Float[Tensor, "*b"]) -> Relaxation:
    """Enclose max(t, 0): convex, so it lies below its secant, the most at the kink."""
    radius = (first + higher).clamp_min(NARROWEST)
    low, high = (centre - radius).clamp_min(0), (centre + radius).clamp_min(0)
    slope = (high - low) / (2 * radius)
    mean = (high + low) / 2
    depth = (mean - slope * centre).clamp_min(0)
    return Relaxation(mean - depth / 2, slope, torch.zeros_like(slope), depth / 2)


def _line(centre: Tensor, low: Tensor, high: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and error of the secant as an enclosure of tanh.

    The deviation is extreme at the ends, where it is 0, or where tanh has the slope a of the secant, tanh =
    +-sqrt(1 - a). The tangents there pass 0 at a distance of +-(sqrt(1 - a) - a artanh(sqrt(1 - a))).
    """
    mean = (high + low) / 2
    offset = mean - slope * centre
    touch = (1 - slope).sqrt()
    bulge = touch - slope * torch.log((1 + touch) / slope.sqrt())
    above = ((bulge - offset) * ((touch > low) & (touch < high))).clamp_min(0)
    below = ((bulge + offset) * ((-touch > low) & (-touch < high))).clamp_min(0)
    return mean + (above - below) / 2, (above + below) / 2


def _tanh(t: Tensor) -> Tensor:
    """Twice as fast as torch's, and as exact in absolute terms."""
    return t.mul(2).exp_().add_(1).reciprocal_().mul_(-2).add_(1)


RELAXATIONS: dict[type[nn.Module], Relax] = {nn.Tanh: relax_tanh, nn.Sigmoid: relax_sigmoid, nn.ReLU: relax_relu}
"""What can be bounded, by the type of the activation module."""
