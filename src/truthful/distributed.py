"""One batch shared by several processes: each has a part of its profiles; network, prices and draws are everyone's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """The share that one of `count` processes has in every batch. One alone exchanges nothing.

    Every process must come to each exchange, in the same order.
    """

    rank: int
    count: int

    def part(self, whole: Any) -> Any:
        """Our rows of tensors whose first axis is the batch, in any nesting of tuples."""
        if self.count == 1:
            return whole
        return pytree.tree_map(lambda tensor: tensor.tensor_split(self.count)[self.rank], whole)

    def whole(self, part: Tensor) -> Tensor:
        """Everyone's rows."""
        if self.count == 1:
            return part
        rows = part.new_zeros(self.count, *part.shape)
        rows[self.rank] = part
        return total(rows).flatten(0, 1)

    def mean(self, own: Sequence[Tensor]) -> list[Tensor]:
        """The mean of each tensor over the processes, all in one exchange; detached."""
        if self.count == 1:
            return list(own)
        flat = total(torch.cat([tensor.detach().flatten() for tensor in own])) / self.count
        parts = flat.split([tensor.numel() for tensor in own])
        return [part.view_as(tensor) for part, tensor in zip(parts, own, strict=True)]

    def joint(self, *own: Tensor) -> list[Tensor]:
        """Means over the whole batch from those over the parts: with the whole batch's value and our part's slope.

        So the `mean` of the gradients of any function of them is its gradient over the whole batch.
        """
        if self.count == 1:
            return list(own)
        return [mean + (part - part.detach()) for mean, part in zip(self.mean(own), own, strict=True)]

    def told(self, find: Callable[[], float]) -> float:
        """What the first process finds; the others do not look."""
        if self.count == 1:
            return find()
        return float(total(torch.tensor(find() if self.rank == 0 else 0.0, dtype=torch.float64)))


ALONE = Share(0, 1)


def total(tensor: Tensor) -> Tensor:
    """The sum over the processes of torch's default group, as an operation that can be compiled."""
    from torch.distributed import _functional_collectives as collectives

    group = torch.distributed.group.WORLD
    assert group is not None, "no process group"
    summed: Tensor = collectives.wait_tensor(collectives.all_reduce(tensor, "sum", group))
    return summed
