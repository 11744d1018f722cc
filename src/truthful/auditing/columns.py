"""Lists of records that are kept as one tensor a field: the boxes, pairs and reports that searches sift."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

Records = TypeVar("Records", bound="Columns")


class Columns:
    """Base of dataclasses whose fields are tensors with a row for each record."""

    def __len__(self) -> int:
        """The number of records."""
        return len(next(iter(vars(self).values())))

    def take(self: Records, rows: Tensor) -> Records:
        """Some of the records, by index or mask."""
        kind: Any = type(self)
        taken: Records = kind(*(column[rows] for column in vars(self).values()))
        return taken


def join(first: Records, *others: Records) -> Records:
    """Several lists as one."""
    kind: Any = type(first)
    columns = zip(*(vars(part).values() for part in (first, *others)), strict=True)
    joined: Records = kind(*(torch.cat(parts) for parts in columns))
    return joined
