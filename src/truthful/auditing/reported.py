"""A bidder's utility as a function of his report, enclosed over boxes of reports."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from truthful.auction import Outcome
from truthful.auditing.relaxation import RELAXATIONS, relax_sigmoid
from truthful.auditing.zonotope import Form, Perceptron, box_form, pairs
from truthful.mechanisms import Mechanism, RegretNet
from truthful.shapes import Float


def largest(form: Form) -> Float[Tensor, "b"]:
    """Upper bound of a form over each box; without the rest it is exact for m <= 2."""
    linear, bends = form.linear, form.bends
    diagonal, mixed = split_bends(form)
    if form.items == 2:
        varying = _largest_on_square(linear, diagonal, bends[1])
    else:
        size = torch.zeros_like(diagonal)
        for row, (j, k) in enumerate(pairs(form.items)):
            if j != k:
                size[[j, k]] += bends[row].abs() / 2
        varying = torch.minimum(parabola(linear, diagonal).sum(0) + mixed, parabola(linear, diagonal + size).sum(0))
    return form.centre + varying + form.rest


def split_bends(form: Form) -> tuple[Float[Tensor, "m b"], Float[Tensor, "b"]]:
    """The coefficients of squares, and a bound of all mixed products together."""
    diagonal = form.bends[[row for row, (j, k) in enumerate(pairs(form.items)) if j == k]]
    return diagonal, form.bends.abs().sum(0) - diagonal.abs().sum(0)


def parabola(linear: Float[Tensor, "*#b"], curvature: Float[Tensor, "*#b"]) -> Float[Tensor, "*b"]:
    """Maximum of linear * t + curvature * t^2 over |t| <= 1."""
    steep, deep = linear.abs(), (-curvature).clamp_min(1e-300)
    return torch.where(steep < 2 * deep, steep.square() / (4 * deep), steep + curvature)


def _largest_on_square(linear: Tensor, diagonal: Tensor, cross: Tensor) -> Tensor:
    """Maximum of l1 s + l2 t + d1 s^2 + d2 t^2 + cross s t: on an edge, or where the gradient is 0."""
    ends = torch.tensor([[[-1.0]], [[1.0]]]).to(cross)
    edges = parabola(linear.flip(0) + ends * cross, diagonal.flip(0)) + ends * linear + diagonal
    determinant = 4 * diagonal.prod(0) - cross.square()
    peak = cross * linear.flip(0) - 2 * diagonal.flip(0) * linear
    peak = (peak / torch.where(determinant == 0, 1.0, determinant)).clamp(-1, 1)
    inner = (linear * peak + diagonal * peak.square()).sum(0) + cross * peak.prod(0)
    return torch.maximum(edges.amax((0, 1)), inner)


class ReportModel(ABC):
    """What one bidder gains by each report, the others' bids given; in float64.

    Args:
        mechanism: left as it is.
        bidder: whose reports.
    """

    activations: tuple[type[nn.Module], ...]
    """Those that it can enclose."""

    def __init__(self, mechanism: Mechanism, bidder: int) -> None:
        self.mechanism = copy.deepcopy(mechanism).double().requires_grad_(False)
        self.bidder, self.items = bidder, mechanism.n_items
        self.allocation, self.payment = self._networks()

    @abstractmethod
    def _networks(self) -> tuple[Perceptron, Perceptron]:
        """What allocation and payment are made of."""

    def utility(
        self, profiles: Float[Tensor, "b n c"], reports: Float[Tensor, "b m"], values: Float[Tensor, "b m"]
    ) -> Float[Tensor, "b"]:
        """What the bidder gains at given reports."""
        bids = profiles.clone()
        bids[:, self.bidder] = reports
        outcome: Outcome = self.mechanism(bids)
        return (values * outcome.allocation[:, self.bidder]).sum(-1) - outcome.payment[:, self.bidder]

    def base(self, profiles: Float[Tensor, "b n c"]) -> tuple[Tensor, Tensor]:
        """What the first layers make of the others' bids."""
        flat = profiles.flatten(-2)
        return self.allocation.preactivation(flat), self.payment.preactivation(flat)

    @abstractmethod
    def enclose(
        self,
        base: tuple[Tensor, Tensor],
        values: Float[Tensor, "b m"],
        centre: Float[Tensor, "b m"],
        half: Float[Tensor, "b m"],
    ) -> tuple[Form, Form, Float[Tensor, "b"]]:
        """Bound the utility over boxes of reports from above.

        Returns a form that the utility never exceeds, that of the allocation's score differences, and another upper
        bound of the utility, by intervals alone, which is the better one over large boxes.

        Args:
            base: of the others' bids, one row a box.
            values: the true values.
            centre, half: the boxes.
        """

    @abstractmethod
    def enclose_outcome(
        self, base: tuple[Tensor, Tensor], centre: Float[Tensor, "b m"], half: Float[Tensor, "b m"]
    ) -> Form:
        """Enclose, over boxes of reports and from both sides, what gives the utility at any value.

        Returns one form with 2 + m cells: truthful utility (the value is the report); utility at the value `centre`;
        the allocation of each item. At any value v the utility is the second one plus (v - centre) . allocation.
        """


class ReportedUtility(ReportModel):
    """u(b) = sum_j (v_j - f(b) b_j) x_j(b) of one bidder under a RegretNet, the others' bids given."""

    activations = tuple(RELAXATIONS)

    mechanism: RegretNet

    def _networks(self) -> tuple[Perceptron, Perceptron]:
        bidder, bidders = self.bidder, self.mechanism.n_bidders
        shapes = self.mechanism.score_shapes
        contests = [_over_bidders(shapes[0], bidder, bidders, self.items)]
        if self.mechanism.demand == "unit":
            first = 0 if len(shapes) == 1 else shapes[0][0] * shapes[0][1]
            contests.append(_over_items(shapes[-1], first, bidder, self.items))
        self._rivals = [rivals.shape[-1] for _, rivals in contests]
        own = torch.cat([chosen.unsqueeze(-1).expand_as(rivals).flatten() for chosen, rivals in contests])
        rivals = torch.cat([rivals.flatten() for _, rivals in contests])
        columns = slice(bidder * self.items, (bidder + 1) * self.items)
        return (
            _perceptron(self.mechanism.allocation_network, columns, rivals, own),
            _perceptron(self.mechanism.payment_network, columns, torch.tensor([bidder]), None),
        )

    def enclose(
        self,
        base: tuple[Tensor, Tensor],
        values: Float[Tensor, "b m"],
        centre: Float[Tensor, "b m"],
        half: Float[Tensor, "b m"],
    ) -> tuple[Form, Form, Float[Tensor, "b"]]:
        """By second-order forms, and by intervals."""
        reports = box_form(centre, half)
        scores, fraction, shares, most = self._parts(base, reports)
        margin = (-(fraction * reports)).shift(values.T, torch.zeros_like(reports.rest))
        won = shares[0] if len(shares) == 1 else lesser(shares[0], shares[1], margin)
        least = reports.range()[0]
        worth = torch.minimum(margin.range()[1], values.T - fraction.range()[0].clamp(0, 1) * least)
        return (margin * won).sum(), scores, (worth.clamp_min(0) * most).sum(0)

    def enclose_outcome(
        self, base: tuple[Tensor, Tensor], centre: Float[Tensor, "b m"], half: Float[Tensor, "b m"]
    ) -> Form:
        """From products of forms."""
        reports = box_form(centre, half)
        _, fraction, shares, _ = self._parts(base, reports)
        charge = -(fraction * reports)
        won = shares[0] if len(shares) == 1 else lesser(shares[0], shares[1])
        truthful = ((charge + reports) * won).sum()
        fixed = (charge.shift(centre.T, torch.zeros_like(reports.rest)) * won).sum()
        return won.after(truthful, fixed)

    def _parts(self, base: tuple[Tensor, Tensor], reports: Form) -> tuple[Form, Form, list[Form], Tensor]:
        """Score differences, payment fraction, the softmaxes whose least is the allocation, and its upper bound."""
        scores = self.allocation.enclose(base[0], reports)
        fraction = self.payment.enclose(base[1], reports).apply(relax_sigmoid)
        most = torch.ones_like(reports.rest)
        shares, start = [], 0
        for rivals in self._rivals:
            part, shape = slice(start, start + self.items * rivals), (self.items, rivals)
            logits = scores.map(lambda t, p=part, s=shape: t[p].unflatten(0, s))
            against = -logits.logsumexp()
            most = torch.minimum(most, against.range()[1].sigmoid())
            shares.append(against.apply(relax_sigmoid))
            start = part.stop
        return scores, fraction, shares, most


def _over_bidders(shape: tuple[int, int], bidder: int, bidders: int, items: int) -> tuple[Tensor, Tensor]:
    """Positions of the bidder's score for each item, and of his rivals' (the other bidders and nobody)."""
    index = torch.arange(shape[0] * shape[1]).view(shape)[:, :items]
    others = [k for k in range(bidders + 1) if k != bidder]
    return index[bidder], index[others].T


def _over_items(shape: tuple[int, int], first: int, bidder: int, items: int) -> tuple[Tensor, Tensor]:
    """Positions of the bidder's score for each item, and of what it competes with (other items and nothing)."""
    index = first + torch.arange(shape[0] * shape[1]).view(shape)[bidder]
    rivals = torch.stack([index[[k for k in range(items + 1) if k != item]] for item in range(items)])
    return index[:items], rivals


def _perceptron(network: nn.Sequential, own: slice, plus: Tensor, minus: Tensor | None) -> Perceptron:
    """A network whose outputs are replaced by differences of two of them."""
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    last = (weights[-1][plus], biases[-1][plus])
    if minus is not None:
        last = (last[0] - weights[-1][minus], last[1] - biases[-1][minus])
    return Perceptron([*weights[:-1], last[0]], [*biases[:-1], last[1]], own, RELAXATIONS[type(network[1])])


def lesser(left: Form, right: Form, margin: Form | None = None) -> Form:
    """min(left, right) of each item.

    Where left - right has one sign: the lesser. Else right + min(left - right, 0) by its secant over [low, high], which
    is off by -low high / (high - low) at most, at the kink. With a `margin`, by which it will be multiplied and then
    summed over items, only an upper bound of that sum is kept: where the margin is known to be nonnegative a mixture of
    both, which is never less, takes the place of the secant.
    """
    excess = left + -right
    low, high = excess.range()
    decided = (low >= 0) | (high <= 0)
    width = torch.where(decided, 1.0, high - low)
    weight = torch.where(decided, (high <= 0).to(width), -low / width)
    gap = torch.where(decided, 0.0, -low * high / width)
    if margin is not None:
        free = ~decided & (margin.range()[0] >= 0)
        weight = _mixture(left, right, margin, weight, free)
        gap = torch.where(free, 0.0, gap)
    return (left.scale(weight) + right.scale(1 - weight)).shift(-gap / 2, gap / 2)


def _mixture(left: Form, right: Form, margin: Form, weight: Tensor, free: Tensor) -> Tensor:
    """Weights of `left`, where `free`, that make the linear bound of sum_j margin_j mixture_j least.

    The bound is convex and piecewise linear in each weight, so a kink is best: one item after the other, twice.
    """
    if not bool(free.any()):
        return weight
    sides = (left, right)
    centre = torch.stack([margin.centre * side.centre for side in sides])
    linear = torch.stack(
        [margin.centre.unsqueeze(-2) * side.linear + side.centre.unsqueeze(-2) * margin.linear for side in sides]
    )
    weight = weight.clone()
    items = len(weight)
    for item in [*range(items), *range(items)]:
        mixed = linear[1] + weight.unsqueeze(1) * (linear[0] - linear[1])
        others = mixed.sum(0) - mixed[item] + linear[1, item]
        step = linear[0, item] - linear[1, item]
        kinks = -others / torch.where(step == 0, 1.0, step)
        candidates = torch.cat([kinks.clamp(0, 1), torch.zeros_like(kinks[:1]), torch.ones_like(kinks[:1])])
        bound = (others + candidates.unsqueeze(1) * step).abs().sum(1) + candidates * (
            centre[0, item] - centre[1, item]
        )
        best = candidates.gather(0, bound.argmin(0, keepdim=True))[0]
        weight[item] = torch.where(free[item], best, weight[item])
    return weight
