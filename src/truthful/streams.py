"""Randomness that can be resumed: every draw comes from a generator seeded by (seed, stream, step).

Nothing random depends on what was drawn before, so a run continued at step t draws exactly what an uninterrupted run
draws at step t. Torch's CPU generator uses 32 bits of its seed. The three highest name the stream, so two streams
never share a generator state; the others move by an odd constant each step, so two steps of one run never do
either (for up to 2**29 steps).
"""

from __future__ import annotations

import hashlib
from enum import IntEnum

import torch

_STEP_BITS = 29


class Stream(IntEnum):
    """What the randomness is for. Nothing is ever tuned on AUDIT; HELD_OUT is for monitoring during training."""

    INIT = 0
    """Initial network parameters."""
    TRAIN = 1
    """Training valuations."""
    ORDER = 2
    """Order of the batches in each epoch."""
    START = 3
    """Starting points of misreports during training."""
    HELD_OUT = 4
    """Valuations and starting points of the periodic audits."""
    AUDIT = 5
    """Valuations and starting points of the final audit."""


def generator(seed: int, stream: Stream, step: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that is a function of (seed, stream, step) alone."""
    offset = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), "big")
    position = (offset + step * 0x9E3779B1) % 2**_STEP_BITS
    return torch.Generator(device).manual_seed((int(stream) << _STEP_BITS) | position)
