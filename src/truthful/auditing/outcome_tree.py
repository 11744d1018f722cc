"""A tree of boxes of one bidder's reports, and enclosures of what a mechanism does over them."""

from __future__ import annotations

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.auditing.reported import ReportModel
from truthful.auditing.zonotope import Form
from truthful.settings import Setting
from truthful.shapes import Float, Int

CHUNK = 512
"""Boxes enclosed at once: few enough for the processor's cache."""


class OutcomeTree:
    """Boxes of reports, the others' bids given. Box 0 is the whole support; a box that was split has 2^m children.

    A box serves as a box of values, too: truthful utility is that of reporting the value.
    """

    def __init__(self, model: ReportModel, setting: Setting, opponents: Float[Tensor, "n m"]) -> None:
        self.model, self.setting, self.opponents = model, setting, opponents
        self.base = model.base(opponents.unsqueeze(0))
        self.low, self.high = (bound[model.bidder] for bound in setting.bounds(opponents))
        ends = torch.tensor([-1.0, 1.0]).to(opponents)
        self.corners: Float[Tensor, "c m"] = torch.cartesian_prod(*[ends] * model.items).view(-1, model.items)
        self.centre: Float[Tensor, "k m"] = (self.high + self.low).unsqueeze(0) / 2
        self.half: Float[Tensor, "k m"] = (self.high - self.low).unsqueeze(0) / 2
        self.truthful, self.allocation = self.at(self.centre)
        self.outcome = self._enclose(self.centre, self.half)
        self.child: Int[Tensor, "k"] = torch.full((1,), -1, device=opponents.device)

    def __len__(self) -> int:
        """Number of boxes."""
        return len(self.child)

    def at(self, reports: Float[Tensor, "k m"]) -> tuple[Float[Tensor, "k"], Float[Tensor, "k m"]]:
        """Truthful utility (nan outside the support) and allocation at single reports."""
        bids = self.opponents.expand(len(reports), -1, -1).clone()
        bids[:, self.model.bidder] = reports
        inside = (self.setting.project(bids) == bids)[:, self.model.bidder].all(-1)
        outcome: Outcome = self.model.mechanism(bids)
        allocation = outcome.allocation[:, self.model.bidder]
        truthful = (reports * allocation).sum(-1) - outcome.payment[:, self.model.bidder]
        return torch.where(inside, truthful, torch.nan), allocation

    def childless(self, boxes: Int[Tensor, "p"]) -> Int[Tensor, "l"]:
        """Those of them that were never split, each once."""
        childless: Tensor = boxes[self.child[boxes] < 0].unique()
        return childless

    def grow(self, parents: Int[Tensor, "l"]) -> None:
        """Split boxes that have no children."""
        if not len(parents):
            return
        ways = len(self.corners)
        half = (self.half[parents] / 2).repeat_interleave(ways, 0)
        centre = self.centre[parents].repeat_interleave(ways, 0) + self.corners.repeat(len(parents), 1) * half
        parts = [self._enclose(*part) for part in zip(centre.split(CHUNK), half.split(CHUNK), strict=True)]
        rows, rest = [part.rows for part in parts], [part.rest for part in parts]
        truthful, allocation = self.at(centre)
        self.child[parents] = len(self) + ways * torch.arange(len(parents), device=parents.device)
        self.child = torch.cat([self.child, torch.full_like(truthful, -1, dtype=torch.int64)])
        self.centre, self.half = torch.cat([self.centre, centre]), torch.cat([self.half, half])
        self.truthful = torch.cat([self.truthful, truthful])
        self.allocation = torch.cat([self.allocation, allocation])
        self.outcome = Form(
            torch.cat([self.outcome.rows, *rows], -1), torch.cat([self.outcome.rest, *rest], -1), self.model.items
        )

    def children(self, boxes: Int[Tensor, "p"]) -> Int[Tensor, "p c"]:
        """The boxes that split boxes were split into."""
        return self.child[boxes].unsqueeze(1) + torch.arange(len(self.corners), device=boxes.device)

    def _enclose(self, centre: Tensor, half: Tensor) -> Form:
        first, second = (base.expand(len(centre), -1) for base in self.base)
        return self.model.enclose_outcome((first, second), centre, half)
