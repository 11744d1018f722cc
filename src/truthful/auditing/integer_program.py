"""The exact worst misreport of a network of linear pieces, by mixed-integer programming (Curry et al. 2020).

With the others' bids given, all that a `SparsemaxRegretNet` computes is linear in pieces, and a bidder's utility
v . x - p is linear in the outcome, so his best report b solves a linear program in which binary variables say which
piece everything is on. With y in [l, u] by interval arithmetic (l < 0 < u where a binary is needed at all):

- a = ReLU(y):  a >= y, a >= 0, a <= y - l (1 - s), a <= u s. For s = 1 this is a = y >= 0, for s = 0 it is a = 0 >= y.
- x = sparsemax(z), the nearest point of the simplex: by its Karush-Kuhn-Tucker conditions x = z - threshold + excess,
  x >= 0, excess >= 0, x and excess never both positive, which one binary s each enforces: x <= s, excess <= M (1 - s).
  The threshold lies between max z - 1 and max z - 1/k for k alternatives, which bounds the excess by M.
- min(x, x') of chances:  at most both, at least x - s and x' - (1 - s).
- The payment min(|score|, cover) is something to be small, so it suffices that it is at least one of the two (a binary
  says which), |score| at least the score and its negative, the cover at least each of the numbers whose largest it is.

HiGHS solves it by branch and bound, to feasibility within 1e-6: a bound is off by about that times M.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from truthful.auction import deviation_utility
from truthful.auditing.arguments import check_fit
from truthful.mechanisms import Mechanism, SparsemaxRegretNet
from truthful.settings import Setting
from truthful.shapes import Float

Array = NDArray[np.float64]
Numbers = int | float | NDArray[Any]
Columns = NDArray[np.int64]
"""Numbers of variables, in any arrangement."""


@dataclass(frozen=True)
class WorstMisreport:
    """The best report of a bidder, in float64."""

    report: Float[Tensor, "m"]
    regret: float
    """What it gains, computed by the network."""
    bound: float
    """No report in the bidder's box gains more, by the solver. Where it is `regret`, the report is the best one."""


def worst_misreport(
    mechanism: Mechanism, setting: Setting, values: Float[Tensor, "n m"], bidder: int, seconds: float
) -> WorstMisreport:
    """What `bidder` should report at these values, over all reports between the bounds of his values.

    Args:
        mechanism: a SparsemaxRegretNet; left as it is.
        setting: of the same shape and demand.
        values: a profile.
        bidder: who lies, from 0.
        seconds: after which the solver gives up; then `bound` may be far above `regret`.

    Raises:
        ValueError: another mechanism, or arguments that do not fit.
    """
    if type(mechanism) is not SparsemaxRegretNet:  # a subclass may compute anything
        raise ValueError(f"only a SparsemaxRegretNet is an integer program, got {type(mechanism).__name__}")
    for layer in [*mechanism.allocation_network, *mechanism.payment_network]:
        if not isinstance(layer, nn.Linear | nn.ReLU):
            raise ValueError(f"only a network of ReLUs is an integer program, got {type(layer).__name__}")
    check_fit(mechanism, setting)
    n, m = setting.n_bidders, setting.n_items
    if values.shape != (n, m):
        raise ValueError(f"values must be of shape ({n}, {m}), got {tuple(values.shape)}")
    if not 0 <= bidder < n:
        raise ValueError(f"bidder must be a whole number from 0 to {n - 1}, got {bidder}")
    network = copy.deepcopy(mechanism).double().requires_grad_(False)
    values = values.detach().double()
    low, high = (torch.where(torch.arange(n)[:, None] == bidder, bound, values) for bound in setting.bounds(values))

    program = _Program()
    bids = program.variables(low.numpy(), high.numpy())
    chances = _chances(program, network, bids, bidder)
    payment = _payment(program, network, bids, chances, bidder)
    goal = np.append(-values[bidder].numpy(), 1.0)
    solution, least = program.minimise(goal, np.append(chances, payment), seconds)
    report = torch.from_numpy(solution[bids[bidder]]).clamp(low[bidder], high[bidder])
    misreport = torch.stack([values, values])
    misreport[1, bidder] = report
    truthful, best = deviation_utility(network, values, misreport)[:, bidder].tolist()
    return WorstMisreport(report, best - truthful, -least - truthful)


def _chances(program: _Program, network: SparsemaxRegretNet, bids: Columns, bidder: int) -> Columns:
    """Of the bidder, one an item."""
    scores = program.network(network.allocation_network, bids.ravel())
    (rows, columns), *second = network.score_shapes
    over_bidders: Columns = program.sparsemax(scores[: rows * columns].reshape(rows, columns))[bidder]
    if not second:
        return over_bidders
    own = scores[rows * columns :].reshape(second[0])[bidder]
    return program.lesser(over_bidders, program.sparsemax(own[:, None])[:-1, 0])


def _payment(program: _Program, network: SparsemaxRegretNet, bids: Columns, chances: Columns, bidder: int) -> Columns:
    """A variable that can be as low as the bidder's payment, and no lower."""
    score = program.network(network.payment_network, bids.ravel())[bidder]
    levels = network.levels[bidder].numpy()
    own = bids[bidder][:, None]
    below = program.relu(program.affine(levels, (-1.0, np.broadcast_to(own[..., None], (*levels.shape, 1)))))
    cover = program.variables(np.zeros(len(levels)), levels[:, -1])
    sold = (-levels[..., None], chances[:, None, None])
    program.require(0, np.inf, (1.0, cover[:, None, None]), sold, (1.0, below[..., None]))
    charged = max(-program.low[score], program.high[score])
    covered = program.high[cover].sum()
    payment, which = program.variables(0, np.full(1, charged)), program.variables(0, np.ones(1), whole=True)
    for sign in (-1.0, 1.0):
        program.require(0, np.inf, (1.0, payment[:, None]), (sign, score[None, None]), (charged, which[:, None]))
    program.require(-covered, np.inf, (1.0, payment[:, None]), (-1.0, cover[None]), (-covered, which[:, None]))
    return payment


class _Program:
    """Variables with bounds, and linear conditions on them. Arrays are numbers or `Columns`, elementwise."""

    def __init__(self) -> None:
        self.low, self.high = np.zeros(0), np.zeros(0)
        self.whole = np.zeros(0)
        self.entries: list[tuple[NDArray[np.int64], NDArray[np.int64], Array]] = []
        self.limits: list[tuple[Array, Array]] = []
        self.conditions = 0

    def variables(self, low: Numbers, high: Numbers, whole: bool = False) -> Columns:
        """New ones, in the arrangement of their bounds."""
        low, high = np.broadcast_arrays(np.asarray(low, dtype=float), np.asarray(high, dtype=float))
        first = len(self.low)
        self.low, self.high = np.append(self.low, low), np.append(self.high, high)
        self.whole = np.append(self.whole, np.full(low.size, float(whole)))
        return np.arange(first, len(self.low)).reshape(low.shape)

    def require(self, low: Numbers, high: Numbers, *terms: tuple[Numbers, Columns]) -> None:
        """low <= sum of coefficient * variable over the terms and over their last axis <= high."""
        shape = np.broadcast_shapes(np.shape(low), np.shape(high), *(columns.shape[:-1] for _, columns in terms))
        rows = self.conditions + np.arange(np.prod(shape, dtype=int)).reshape(shape)
        for coefficient, columns in terms:
            full = (*shape, columns.shape[-1])
            parts = (rows[..., None], columns, np.asarray(coefficient, dtype=float))
            row, column, number = (np.broadcast_to(part, full).ravel() for part in parts)
            self.entries.append((row, column, number))
        least, most = (np.broadcast_to(limit, shape).ravel().astype(float) for limit in (low, high))
        self.limits.append((least, most))
        self.conditions += rows.size

    def affine(self, constant: Numbers, term: tuple[Numbers, Columns]) -> Columns:
        """New variables: constant + the term, summed over its last axis."""
        coefficient, columns = np.broadcast_arrays(np.asarray(term[0], dtype=float), term[1])
        ends = coefficient * self.low[columns], coefficient * self.high[columns]
        low, high = constant + np.minimum(*ends).sum(-1), constant + np.maximum(*ends).sum(-1)
        found = self.variables(low, high)
        self.require(constant, constant, (1.0, found[..., None]), (-coefficient, columns))
        return found

    def relu(self, columns: Columns) -> Columns:
        """The larger of a variable and 0."""
        low, high = np.minimum(self.low[columns], 0), np.maximum(self.high[columns], 0)
        found = self.variables(np.maximum(self.low[columns], 0), high)
        above = self.high[columns] > 0
        active = self.variables((self.low[columns] >= 0) & above, above, whole=True)
        positive, given, chosen = (part[..., None] for part in (found, columns, active))
        self.require(0, np.inf, (1.0, positive), (-1.0, given))
        self.require(-np.inf, -low, (1.0, positive), (-1.0, given), (-low[..., None], chosen))
        self.require(-np.inf, 0, (1.0, positive), (-high[..., None], chosen))
        return found

    def sparsemax(self, columns: Columns) -> Columns:
        """Over the first axis."""
        low, high = self.low[columns], self.high[columns]
        threshold = self.variables(low.max(0) - 1, high.max(0) - 1 / len(low))
        most = np.maximum(self.high[threshold] - low, 0)
        chance, excess = self.variables(0, np.ones(low.shape)), self.variables(0, most)
        active = self.variables(0, high > self.low[threshold], whole=True)
        terms = ((1.0, chance), (-1.0, columns), (1.0, np.broadcast_to(threshold, low.shape)), (-1.0, excess))
        self.require(0, 0, *((number, part[..., None]) for number, part in terms))
        self.require(1, 1, (1.0, chance.T))
        self.require(-np.inf, 0, (1.0, chance[..., None]), (-1.0, active[..., None]))
        self.require(-np.inf, most, (1.0, excess[..., None]), (most[..., None], active[..., None]))
        return chance

    def lesser(self, one: Columns, other: Columns) -> Columns:
        """The smaller of two chances."""
        found, which = self.variables(0, np.ones(one.shape)), self.variables(0, np.ones(one.shape), whole=True)
        least, side = found[..., None], which[..., None]
        for chance, low, sign in ((one, 0, 1.0), (other, -1, -1.0)):
            self.require(-np.inf, 0, (1.0, least), (-1.0, chance[..., None]))
            self.require(low, np.inf, (1.0, least), (-1.0, chance[..., None]), (sign, side))
        return found

    def network(self, layers: nn.Sequential, inputs: Columns) -> Columns:
        """What comes out of affine layers and ReLUs."""
        for layer in layers:
            if isinstance(layer, nn.Linear):
                inputs = self.affine(layer.bias.numpy(), (layer.weight.numpy(), inputs[None]))
            else:
                inputs = self.relu(inputs)
        return inputs

    def minimise(self, goal: Array, columns: Columns, seconds: float) -> tuple[Array, float]:
        """The best solution found of goal . columns, and a lower bound of it."""
        from scipy import sparse
        from scipy.optimize import Bounds, LinearConstraint, milp

        row, column, number = (np.concatenate(part) for part in zip(*self.entries, strict=True))
        matrix = sparse.csr_array((number, (row, column)), shape=(self.conditions, len(self.low)))
        low, high = (np.concatenate(part) for part in zip(*self.limits, strict=True))
        costs = np.zeros(len(self.low))
        costs[columns] = goal
        options: dict[str, Any] = {"time_limit": seconds, "mip_rel_gap": 0.0}
        found = milp(
            costs,
            integrality=self.whole,
            bounds=Bounds(self.low, self.high),
            constraints=LinearConstraint(matrix, low, high),
            options=options,
        )
        if found.x is None:
            raise RuntimeError(f"the solver found no report within {seconds:g} seconds: {found.message}")
        return found.x, float(found.mip_dual_bound)
