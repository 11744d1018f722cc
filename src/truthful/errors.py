"""Mistakes that the program answers in one sentence."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user, as one sentence."""
