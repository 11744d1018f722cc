"""Branch and bound over pairs of a box of values and a box of reports."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.auditing.branching import SLACK
from truthful.auditing.columns import Columns, join
from truthful.auditing.outcome_tree import OutcomeTree
from truthful.auditing.reported import largest
from truthful.auditing.zonotope import Form
from truthful.shapes import Bool, Float, Int

GRID = 33
"""Values, and reports, along each item of the first search for a regret."""
ZOOM = 9
"""The same for the searches after it, round the best value and the best report."""
ZOOMS = 12
"""How many of them, each in boxes half as wide."""
BATCH = 2**14
"""Pairs split at once, those with the highest bounds."""
CHUNK = 2**13
"""Pairs bounded at once: few enough for the processor's cache."""


@dataclass(frozen=True)
class Pairs(Columns):
    """A box of values and a box of reports each (places in the tree), a bound of the gain, and what to split."""

    cell: Int[Tensor, "p"]
    box: Int[Tensor, "p"]
    bound: Float[Tensor, "p"]
    by_value: Bool[Tensor, "p"]
    """Split the box of values, else that of reports: the one that contributes more to the bound."""

    def split(self) -> Tensor:
        return torch.where(self.by_value, self.cell, self.box)


class PairSearch:
    """Branch and bound over pairs, those with the highest bounds first."""

    def __init__(self, tree: OutcomeTree, eps: float, max_boxes: int, max_cells: int) -> None:
        self.tree, self.max_boxes, self.max_cells = tree, max_boxes, max_cells
        self.eps = eps * (1 - 1e-6)  # so that rounding does not open what it closes
        self.slack = SLACK * float(tree.setting.high.max())
        self.cells, self.dropped = 0, 0.0
        self.best, self.value, self.report = -math.inf, tree.centre[0], tree.centre[0]
        self._try_grid(GRID, 0.5)
        self.best = max(self.best, 0.0)  # the grid holds the truth
        self._zoom()

    def run(self, progress: Callable[[float], None] | None) -> None:
        """Bound the gain until no pair may hold more than best + eps, or a budget is spent."""
        tree = self.tree
        root = torch.zeros_like(tree.child)
        most = (tree.high.sum() + self.slack).unsqueeze(0)  # payments and truthful utility are never negative
        waiting = self._bound(root, root, most)
        while len(waiting):
            order = self._affordable(waiting, waiting.bound.topk(min(BATCH, len(waiting))).indices)
            if not len(order):
                break
            parents = waiting.take(order)
            tree.grow(tree.childless(parents.split()))
            others = torch.ones_like(waiting.by_value).index_fill(0, order, False)
            known = self.best
            waiting = join(waiting.take(others), self._bound(*self._children(parents)))
            if self.best > known + self.eps:  # another maximum
                self._zoom()
            alive = waiting.bound > self.best + self.eps
            self._drop(waiting.bound[~alive])
            waiting = waiting.take(alive)
            if progress is not None:
                progress(min(0.999, max(self.cells / self.max_cells, len(tree) / self.max_boxes)))
        self._drop(waiting.bound)
        if progress is not None:
            progress(1.0)

    def _affordable(self, waiting: Pairs, order: Tensor) -> Tensor:
        """So many of the pairs, from the first on, that the budgets have room for their children."""
        ways = len(self.tree.corners)
        while len(order):
            boxes = ways * len(self.tree.childless(waiting.take(order).split()))
            if self.cells + ways * len(order) <= self.max_cells and len(self.tree) + boxes <= self.max_boxes:
                break
            order = order[: len(order) // 2]
        return order

    def _children(self, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes of values, boxes of reports, and the bounds inherited."""
        children = self.tree.children(pairs.split())
        by_value = pairs.by_value.unsqueeze(-1)
        cell = torch.where(by_value, children, pairs.cell.unsqueeze(-1))
        box = torch.where(by_value, pairs.box.unsqueeze(-1), children)
        return cell.flatten(), box.flatten(), pairs.bound.repeat_interleave(children.shape[-1])

    def _bound(self, cell: Tensor, box: Tensor, bound: Tensor) -> Pairs:
        """Bound the gain over pairs, given other bounds of it, and try the middle of each."""
        self.cells += len(cell)
        chunks = zip(cell.split(CHUNK), box.split(CHUNK), bound.split(CHUNK), strict=True)
        return join(*(self._bound_chunk(*chunk) for chunk in chunks))

    def _bound_chunk(self, cell: Tensor, box: Tensor, bound: Tensor) -> Pairs:
        tree, items = self.tree, self.tree.model.items
        apart = tree.centre[cell] - tree.centre[box]
        gain = tree.truthful[box] + (apart * tree.allocation[box]).sum(-1) - tree.truthful[cell]
        top = int(gain.nan_to_num(-torch.inf).argmax())
        self._try(float(gain[top]), tree.centre[cell[top]], tree.centre[box[top]])

        outcome = tree.outcome.map(lambda rows: rows[..., box])
        apart = apart + tree.corners.unsqueeze(1) * tree.half[cell]  # of all corners
        rows, rest = outcome.rows[1].unsqueeze(1), outcome.rest[1]
        for item in range(items):
            rows = rows + outcome.rows[2 + item].unsqueeze(1) * apart[..., item]
            rest = rest + outcome.rest[2 + item] * apart[..., item].abs()
        most = largest(Form(rows.flatten(1), rest.flatten(), items)).view(len(tree.corners), -1)

        excess = multilinear(most) + -tree.outcome.map(lambda rows: rows[0][..., cell])
        found = largest(excess)
        bound = torch.fmin(bound, found + self.slack)  # an overflow leaves the parent's bound
        by_value = (found - excess.centre).nan_to_num(torch.inf)
        by_report = (most - rows[0]).mean(0).nan_to_num(torch.inf)
        return Pairs(cell, box, bound, by_value > by_report)

    def _drop(self, bound: Tensor) -> None:
        if len(bound):
            self.dropped = max(self.dropped, float(bound.max()))

    def _try(self, gain: float, value: Tensor, report: Tensor) -> None:
        """Raise the incumbent; nan, outside the support, is no gain."""
        if gain > self.best:
            self.best, self.value, self.report = gain, value, report

    def _try_grid(self, points: int, half: float) -> None:
        """Try all values with all reports on grids round the incumbent's, `half` being relative to the support."""
        tree = self.tree
        line = torch.linspace(-half, half, points).to(tree.low) * (tree.high - tree.low).unsqueeze(-1)
        grid = torch.cartesian_prod(*line).view(-1, tree.model.items)
        values, reports = ((point + grid).clamp(tree.low, tree.high) for point in (self.value, self.report))
        (truthful, _), (reported, allocation) = tree.at(values), tree.at(reports)
        payment = (reports * allocation).sum(-1) - reported
        gain = (values @ allocation.T - payment - truthful.unsqueeze(-1)).nan_to_num(-torch.inf)
        top = int(gain.argmax())
        self._try(float(gain.view(-1)[top]), values[top // len(reports)], reports[top % len(reports)])

    def _zoom(self) -> None:
        for k in range(ZOOMS):
            self._try_grid(ZOOM, 0.5 ** (k + 4))


def multilinear(values: Float[Tensor, "c p"]) -> Form:
    """The interpolation of values at the 2^m corners (m <= 2, in the order of `OutcomeTree.corners`)."""
    share, zero = values / len(values), torch.zeros_like(values[0])
    if len(values) == 2:
        return Form(torch.stack([share[0] + share[1], share[1] - share[0], zero]), zero, 1)
    below, above = share[0] + share[1], share[2] + share[3]
    left, right = share[0] + share[2], share[1] + share[3]
    cross = share[0] - share[1] - share[2] + share[3]
    return Form(torch.stack([below + above, above - below, right - left, zero, cross, zero]), zero, 2)
