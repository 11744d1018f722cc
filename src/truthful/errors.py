"""Mistakes that the program answers in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user, as one sentence."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, by the whole name or by its last part; None if none is similar."""
    known = sorted(known)
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.7):
        return close[0]
    last = name.rpartition(".")[2]
    return next(
        (key for key in known if difflib.SequenceMatcher(None, last, key.rpartition(".")[2]).ratio() > 0.84), None
    )
