"""What an audit has finished, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from truthful import checkpoints

SECONDS_BETWEEN_SAVES = 5.0


class Journal:
    """Results of finished parts of an audit, in memory and, if `path` is given, in a file that is written atomically.

    Args:
        path: the file, or None.
        identity: whatever the results depend on; the file of another audit is not used.
    """

    def __init__(self, path: Path | None, identity: str) -> None:
        self._path, self._identity = path, identity
        self._parts: dict[str, Any] = {}
        self._begun = self._saved = time.monotonic()
        self._before = 0.0
        if path is not None and path.exists():
            with contextlib.suppress(Exception):  # whatever else it is, it is of no use
                content = torch.load(path, weights_only=True)
                if content["identity"] == identity:
                    self._parts, self._before = content["parts"], content["seconds"]

    @property
    def seconds(self) -> float:
        """Wall time since the start, with that of the interrupted sessions whose results are used."""
        return self._before + time.monotonic() - self._begun

    def part(self, name: str, compute: Callable[[], Any]) -> Any:
        """The finished part `name`, or what `compute` returns (tensors and plain types), which is then kept."""
        if name not in self._parts:
            self._parts[name] = compute()
            if self._path is not None and time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES:
                self.save()
        return self._parts[name]

    def save(self) -> None:
        """Write the file."""
        if self._path is None:
            return
        content = {"identity": self._identity, "parts": self._parts, "seconds": self.seconds}
        checkpoints.save(self._path, lambda path: torch.save(content, path))
        self._saved = time.monotonic()
