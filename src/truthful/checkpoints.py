"""Checkpoints on disk: written atomically, read without executing code, refused with a reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from truthful.errors import UserError
from truthful.mechanisms import Mechanism


def save(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file beside `path`, then put it in its place in one go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """A checkpoint, on the CPU. Raises UserError if there is none or it cannot be read."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {path}")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise UserError(
            f"the checkpoint {path} cannot be read, it is truncated or not a checkpoint ({type(error).__name__}); "
            "delete it to start again"
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "run"} <= checkpoint.keys():
        raise UserError(f"{path} is not a checkpoint of this program: it has no state_dict and run")
    return checkpoint


def restore_mechanism(mechanism: Mechanism, checkpoint: dict[str, Any]) -> None:
    """Load the mechanism's part of a training checkpoint."""
    prefix = "mechanism."
    state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    if not state:
        raise UserError(
            "the checkpoint has no mechanism in it; of a population, name a member: run=<folder>/member_<seed>"
        )
    shapes = {name: tensor.shape for name, tensor in mechanism.state_dict().items()}
    if shapes.keys() == state.keys() and any(shapes[name] != tensor.shape for name, tensor in state.items()):
        raise UserError(
            f"the checkpoint's {type(mechanism).__name__} was trained for other numbers of bidders or items, or another "
            f"demand, than {mechanism.n_bidders} x {mechanism.n_items} {mechanism.demand}; "
            "equivariantnet and regretformer are for any number of bidders and items"
        )
    try:
        mechanism.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"the checkpoint does not fit the mechanism: {error}") from error
