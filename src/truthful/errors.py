"""Mistakes that the program answers in one sentence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user, as one sentence."""


def whole(name: str, number: object, least: int) -> int:
    """The number. Raises ValueError unless it is a whole number of at least `least`."""
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {number!r}")
    return number


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, by the whole name or by its last part; None if none is similar."""
    known = sorted(known)
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.7):
        return close[0]
    last = name.rpartition(".")[2]
    return next(
        (key for key in known if difflib.SequenceMatcher(None, last, key.rpartition(".")[2]).ratio() > 0.84), None
    )


def one_line(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, OSError):
        return _os_line(error)
    text = str(error)
    if interpolation := re.search(r"Interpolation key '([^']+)' not found", text):
        return f"the configuration refers to {interpolation[1]!r}, which does not exist"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _os_line(error: OSError) -> str:
    verb = "find" if isinstance(error, FileNotFoundError) else "write to"
    return f"cannot {verb} {error.filename!r}: {error.strerror}" if error.filename else str(error)
