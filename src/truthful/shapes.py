"""Tensor shapes in signatures. With jaxtyping they can be checked (the tests do); without it they are documentation.

Axes: `b` batch (any number of leading axes), `n` bidder, `m` item. Money has one currency; an allocation entry is a
probability.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
else:
    try:
        from jaxtyping import Bool, Float, Int
    except ImportError:  # the core runs where only torch is installed

        class Float:
            """Stands in for jaxtyping's: `Float[Tensor, "b n"]` is plain `Tensor`."""

            def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
                return item[0]

        Bool = Int = Float


__all__ = ["Bool", "Float", "Int"]
