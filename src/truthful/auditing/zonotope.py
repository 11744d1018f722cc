"""Quadratic forms with a remainder: what a network's neurons are over a box of its inputs.

Over a box b = c + r * delta, delta in [-1, 1]^m, every quantity is enclosed as

    centre + linear . delta + sum_(j <= k) bend_jk delta_j delta_k +- rest,

a zonotope (affine arithmetic, de Figueiredo and Stolfi 2004) with second-order terms, so that the rest shrinks with the
third power of the box's size. Rounding is not directed; whoever uses a bound adds a slack.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.auditing.relaxation import Relax
from truthful.shapes import Float


@functools.lru_cache
def pairs(items: int) -> tuple[tuple[int, int], ...]:
    """The pairs j <= k in the order of `Form.bends`."""
    return tuple(itertools.combinations_with_replacement(range(items), 2))


@dataclass(frozen=True)
class Form:
    """A tensor of forms: cells c, rows r, boxes b. Boxes come last because all arithmetic runs along them.

    Rows are the centre, `items` linear coefficients, and the bends (none for an affine form).
    """

    rows: Float[Tensor, "*c r b"]
    rest: Float[Tensor, "*c b"]
    items: int

    @property
    def centre(self) -> Float[Tensor, "*c b"]:
        """Value in the middle of the box."""
        return self.rows[..., 0, :]

    @property
    def linear(self) -> Float[Tensor, "*c m b"]:
        """Coefficients of delta."""
        return self.rows[..., 1 : 1 + self.items, :]

    @property
    def bends(self) -> Float[Tensor, "*c p b"]:
        """Coefficients of the products delta_j delta_k, j <= k."""
        return self.rows[..., 1 + self.items :, :]

    def parts(self) -> tuple[Tensor, Tensor]:
        """Bounds of the linear part, and of all that is neither centre nor linear."""
        return self.linear.abs().sum(-2), self.bends.abs().sum(-2) + self.rest

    def range(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds."""
        radius = self.rows[..., 1:, :].abs().sum(-2) + self.rest
        return self.centre - radius, self.centre + radius

    def map(self, view: Callable[[Tensor], Tensor]) -> Form:
        """The same forms in another arrangement of the cells, or some of them; `view` acts on the first axis."""
        return Form(view(self.rows), view(self.rest), self.items)

    def after(self, *single: Form) -> Form:
        """These cells, with single ones before them."""
        rows = torch.cat([*(one.rows.unsqueeze(0) for one in single), self.rows])
        return Form(rows, torch.cat([*(one.rest.unsqueeze(0) for one in single), self.rest]), self.items)

    def sum(self) -> Form:
        """Sum over the last axis of cells."""
        return Form(self.rows.sum(-3), self.rest.sum(-2), self.items)

    def __add__(self, other: Form) -> Form:
        """The sum; the rests may add up."""
        return Form(self.rows + other.rows, self.rest + other.rest, self.items)

    def __neg__(self) -> Form:
        """The negative."""
        return Form(-self.rows, self.rest, self.items)

    def scale(self, factor: Tensor) -> Form:
        """Multiply by known numbers."""
        return Form(self.rows * factor.unsqueeze(-2), self.rest * factor.abs(), self.items)

    def shift(self, number: Tensor, error: Tensor) -> Form:
        """Add known numbers, up to +-error."""
        rows = self.rows.clone()
        rows[..., 0, :] += number
        return Form(rows, self.rest + error, self.items)

    def __mul__(self, other: Form) -> Form:
        """The product: exact up to second order, the higher orders bounded."""
        first, higher = self.parts()
        other_first, other_higher = other.parts()
        rows = self.rows * other.centre.unsqueeze(-2) + other.rows * self.centre.unsqueeze(-2)
        rows[..., 0, :] /= 2
        for row, (j, k) in enumerate(pairs(self.items), 1 + self.items):
            rows[..., row, :] += self.linear[..., j, :] * other.linear[..., k, :]
            if j != k:
                rows[..., row, :] += self.linear[..., k, :] * other.linear[..., j, :]
        rest = self.rest * other.centre.abs() + other.rest * self.centre.abs()
        return Form(rows, rest + first * other_higher + higher * (other_first + other_higher), self.items)

    def square(self, weight: Tensor) -> Float[Tensor, "*c p b"]:
        """Bends of weight * (linear part)^2."""
        weighted = self.linear * weight.unsqueeze(-2)
        blocks = []
        for j in range(self.items):
            blocks.append(weighted[..., j : j + 1, :] * self.linear[..., j:, :])
            blocks[-1][..., 1:, :] *= 2
        return torch.cat(blocks, -2)

    def affine(self, weight: Float[Tensor, "o i"], bias: Float[Tensor, "o"]) -> Form:
        """An affine layer along the only axis of cells."""
        rows = (weight @ self.rows.flatten(1)).unflatten(1, self.rows.shape[1:])
        rows[:, 0] += bias.unsqueeze(-1)
        return Form(rows, weight.abs() @ self.rest, self.items)

    def apply(self, relax: Relax) -> Form:
        """An activation of each form."""
        first, higher = self.parts()
        near = relax(self.centre, first, higher)
        rows = self.rows * near.slope.unsqueeze(-2)
        rows[..., 0, :] = near.middle
        bends = self.square(near.curvature)
        if rows.shape[-2] == 1 + self.items:
            rows = torch.cat([rows, bends], -2)
        else:
            rows[..., 1 + self.items :, :] += bends
        return Form(rows, self.rest * near.slope + near.error, self.items)

    def logsumexp(self) -> Form:
        """Log of the sum of exponentials over the last axis of cells, which are alternatives.

        Tangent plane plus half the variance of the displacements under the softmax. That variance is at most
        spread^2 / 4 and the third cumulant at most spread^3 / (6 sqrt 3), with `spread` the range of the displacements
        over the alternatives.
        """
        alternatives = self.rest.shape[-2]
        share = self.centre.softmax(-2)
        mean = self.scale(share).sum()
        if alternatives == 1:
            return mean
        first, higher = self.parts()
        spread = torch.zeros_like(mean.rest)
        for k, other in itertools.combinations(range(alternatives), 2):
            apart = (self.rows[..., k, 1:, :] - self.rows[..., other, 1:, :]).abs().sum(-2)
            spread = torch.maximum(spread, apart + self.rest[..., k, :] + self.rest[..., other, :])
        widest, noise = first.amax(-2), higher.amax(-2)
        flat = spread.square() / 16
        error = spread.pow(3) / (36 * 3**0.5) + noise * (widest + noise / 2)
        half = (error < flat) / 2.0
        rows = mean.rows
        rows[..., 0, :] = self.centre.logsumexp(-2) + flat * (1 - 2 * half)
        rows[..., 1 + self.items :, :] += self.square(share * half.unsqueeze(-2)).sum(-3) - mean.square(half)
        return Form(rows, mean.rest + torch.minimum(error, flat), self.items)


@dataclass(frozen=True)
class Perceptron:
    """Affine layers with an activation between them, and the columns of the first one that belong to the reports."""

    weights: list[Tensor]
    biases: list[Tensor]
    own: slice
    relax: Relax

    def preactivation(self, profiles: Float[Tensor, "b i"]) -> Float[Tensor, "b w"]:
        """What the first layer makes of everything but the reports."""
        others = profiles.clone()
        others[:, self.own] = 0
        return others @ self.weights[0].T + self.biases[0]

    def enclose(self, base: Float[Tensor, "b w"], box: Form) -> Form:
        """The outputs over boxes of reports, given `preactivation` of the others' bids."""
        entry = self.weights[0][:, self.own]
        rows = (entry @ box.rows[:, : 1 + box.items].flatten(1)).unflatten(1, (1 + box.items, -1))
        rows[:, 0] += base.T
        form = Form(rows, torch.zeros_like(rows[:, 0]), box.items)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            form = form.apply(self.relax).affine(weight, bias)
        return form


def box_form(centre: Float[Tensor, "b m"], half: Float[Tensor, "b m"]) -> Form:
    """The reports themselves over boxes: one cell an item."""
    items = centre.shape[-1]
    rows = centre.new_zeros(items, 1 + items + len(pairs(items)), len(centre))
    rows[:, 0] = centre.T
    for item in range(items):
        rows[item, 1 + item] = half[:, item]
    return Form(rows, torch.zeros_like(rows[:, 0]), items)
