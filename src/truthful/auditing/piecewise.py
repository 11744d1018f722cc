"""A bidder's utility as a function of his report in a network of linear pieces, enclosed over boxes of reports."""

from __future__ import annotations

import itertools
from functools import reduce

import torch
from torch import Tensor, nn

from truthful.auditing.relaxation import relax_relu
from truthful.auditing.reported import ReportModel, lesser
from truthful.auditing.zonotope import Form, Perceptron, box_form
from truthful.mechanisms import SparsemaxRegretNet
from truthful.shapes import Float, Int

MOST_ALTERNATIVES = 10
"""Of a sparsemax: its chances are a minimum over subsets of the others."""


class PiecewiseUtility(ReportModel):
    """v . x(b) - p(b) of one bidder under a SparsemaxRegretNet, the others' bids given.

    Everything is a sum, a ReLU, or the lesser of two. Of sparsemax(z) with alternatives k, the chance of i is

        max(0, min over the sets S that i is in of z_i - (sum of z over S - 1) / |S|),

    since the threshold (sum of z over S - 1) / |S| is highest for the support as S, and where i is not in the support,
    the support and i together leave it nothing. The last layer makes these differences of scores.

    Raises:
        ValueError: a sparsemax over more alternatives than `MOST_ALTERNATIVES`.
    """

    activations = (nn.ReLU,)

    mechanism: SparsemaxRegretNet

    def _networks(self) -> tuple[Perceptron, Perceptron]:
        bidder, n, m = self.bidder, self.mechanism.n_bidders, self.items
        positions = torch.arange((n + 1) * m).view(n + 1, m)
        contests = [(positions.T, bidder)]
        if self.mechanism.demand == "unit":
            row = positions.numel() + bidder * (m + 1) + torch.arange(m + 1)
            contests.append((torch.stack([row.roll(-item) for item in range(m)]), 0))
        networks = self.mechanism.allocation_network, self.mechanism.payment_network
        scores = sum(rows * columns for rows, columns in self.mechanism.score_shapes)
        parts = [_differences(*contest, scores) for contest in contests]
        self._sets = [len(rise[0]) for _, rise in parts]
        mix, rise = (torch.cat([part.flatten(0, 1) for part in column]) for column in zip(*parts, strict=True))
        columns = slice(bidder * m, (bidder + 1) * m)
        mine = torch.eye(n)[[bidder]].double(), torch.zeros(1).double()
        return _perceptron(networks[0], columns, mix, rise), _perceptron(networks[1], columns, *mine)

    def enclose(
        self,
        base: tuple[Tensor, Tensor],
        values: Float[Tensor, "b m"],
        centre: Float[Tensor, "b m"],
        half: Float[Tensor, "b m"],
    ) -> tuple[Form, Form, Float[Tensor, "b"]]:
        """Bound the utility over boxes of reports from above."""
        differences, won, payment = self._parts(base, box_form(centre, half))
        most = won.range()[1].clamp(0, 1)
        plain = (values.T * most).sum(0) - payment.range()[0].clamp_min(0)
        return won.scale(values.T).sum() + -payment, differences, plain

    def enclose_outcome(
        self, base: tuple[Tensor, Tensor], centre: Float[Tensor, "b m"], half: Float[Tensor, "b m"]
    ) -> Form:
        """Enclose, over boxes of reports and from both sides, what gives the utility at any value."""
        reports = box_form(centre, half)
        _, won, payment = self._parts(base, reports)
        truthful, fixed = (reports * won).sum() + -payment, won.scale(centre.T).sum() + -payment
        return won.after(truthful, fixed)

    def _parts(self, base: tuple[Tensor, Tensor], reports: Form) -> tuple[Form, Form, Form]:
        """Differences of scores, the chance of each item, the payment."""
        differences = self.allocation.enclose(base[0], reports)
        chances, start = [], 0
        for count in self._sets:
            stop = start + self.items * count
            columns = [differences.map(lambda t, k=k, s=stop, c=count: t[k:s:c]) for k in range(start, start + count)]
            chances.append(reduce(lesser, columns).apply(relax_relu))
            start = stop
        won = reduce(lesser, chances)
        pieces = [_level(won, reports, level) for level in self.mechanism.levels[self.bidder].T.unsqueeze(-1)]
        cover = (-reduce(lesser, [-piece for piece in pieces])).apply(relax_relu).sum()
        score = self.payment.enclose(base[1], reports).map(lambda t: t[0])
        return differences, won, lesser(-lesser(-score, score), cover)


def _level(won: Form, reports: Form, level: Float[Tensor, "m 1"]) -> Form:
    """level * won - max(0, level - report)."""
    below = (-reports).shift(level, torch.zeros_like(reports.rest)).apply(relax_relu)
    return won.scale(level.expand_as(won.rest)) + -below


def _differences(
    alternatives: Int[Tensor, "m k"], own: int, scores: int
) -> tuple[Float[Tensor, "m s scores"], Float[Tensor, "m s"]]:
    """For each item and set with `own` in it: weights of the scores, and a constant, that make what it leaves to it."""
    items, count = alternatives.shape
    if count > MOST_ALTERNATIVES:
        raise ValueError(
            f"a sparsemax over at most {MOST_ALTERNATIVES} alternatives (bidders and nobody, items and nothing) can be "
            f"certified, got {count}"
        )
    others = [k for k in range(count) if k != own]
    sets = [(own, *rest) for size in range(count) for rest in itertools.combinations(others, size)]
    mix = torch.zeros(items, len(sets), scores, dtype=torch.float64)
    for row, members in enumerate(sets):
        for item in range(items):
            mix[item, row, alternatives[item, own]] += 1
            mix[item, row, alternatives[item, list(members)]] -= 1 / len(members)
    rise = torch.tensor([1 / len(members) for members in sets], dtype=torch.float64)
    return mix, rise.expand(items, -1)


def _perceptron(network: nn.Sequential, own: slice, mix: Tensor, rise: Tensor) -> Perceptron:
    """A network whose outputs are replaced by weighted sums of them and constants."""
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    mix, rise = mix.to(weights[-1]), rise.to(weights[-1])
    return Perceptron([*weights[:-1], mix @ weights[-1]], [*biases[:-1], mix @ biases[-1] + rise], own, relax_relu)
