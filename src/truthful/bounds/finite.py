"""The optimal DSIC and IR auction of a small finite setting, by one linear program."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from truthful.auction import Outcome
from truthful.laws import Discrete
from truthful.mechanisms import Mechanism
from truthful.settings import Setting
from truthful.settings.base import DEMANDS
from truthful.shapes import Float

MOST_CONSTRAINTS = 50_000
"""Incentive constraints of the largest program that is tried; it takes about a minute."""
TOLERANCE = 1e-9
"""Largest violation of a constraint that the solver is to leave."""


@dataclass(frozen=True)
class FiniteOptimum:
    """The optimal auction: an outcome for each profile of types."""

    types: tuple[Float[Tensor, "t m"], ...]
    """The types of each bidder."""
    allocation: Float[Tensor, "*t n m"]
    """One axis of types for each bidder."""
    payment: Float[Tensor, "*t n"]
    revenue: float


def optimal_finite(setting: Setting) -> FiniteOptimum:
    """The revenue-optimal DSIC and IR auction of a setting with independent values of finitely many atoms each."""
    types, probability = finite_types(setting)
    return optimal_table(types, probability, setting.demand)


def finite_types(setting: Setting) -> tuple[tuple[Float[Tensor, "t m"], ...], Float[Tensor, "*t"]]:
    """Each bidder's types, and the probability of each profile of them (an axis for each bidder), in float64."""
    rows = setting.laws or ()
    if not setting.independent or not rows or not all(isinstance(law, Discrete) for row in rows for law in row):
        raise ValueError(
            "a table of all types needs independent values with finitely many atoms each, got "
            f"{type(setting).__name__} with laws {rows or 'unknown'}"
        )
    types, chances = [], []
    for row in rows:
        atoms, weights = ([getattr(law, name) for law in row] for name in ("atoms", "probabilities"))
        types.append(torch.tensor(list(itertools.product(*atoms)), dtype=torch.float64))
        chances.append(torch.tensor(list(itertools.product(*weights)), dtype=torch.float64).prod(-1))
    probability = chances[0]
    for chance in chances[1:]:
        probability = probability.unsqueeze(-1) * chance
    return tuple(types), probability


def optimal_table(
    types: Sequence[Float[Tensor, "_ m"]], probability: Float[Tensor, "*t"], demand: str
) -> FiniteOptimum:
    """The revenue-optimal DSIC and IR auction for any joint law of finitely many types.

    Ex post: truth is best, and loses nothing, for every profile of types, one of probability 0 included. Constraints
    hold to 1e-9.

    Args:
        types: the types of each bidder, a row each.
        probability: that of each profile of types, one axis for each bidder.
        demand: `additive` or `unit`.
    """
    sizes = [len(own) for own in types]
    if demand not in DEMANDS:
        raise ValueError(f"demand must be one of {', '.join(DEMANDS)}, got {demand!r}")
    if list(probability.shape) != sizes or not math.isclose(float(probability.sum()), 1.0, abs_tol=1e-6):
        raise ValueError(
            f"probability must have shape {sizes} and sum 1, got {list(probability.shape)} and {probability.sum():g}"
        )
    constraints = math.prod(sizes) * sum(size - 1 for size in sizes)
    if constraints > MOST_CONSTRAINTS:
        raise ValueError(
            f"the program must have at most {MOST_CONSTRAINTS} incentive constraints, got {constraints} for "
            f"{' x '.join(map(str, sizes))} types"
        )
    solution = _solve(types, probability, demand)
    n, m = len(types), types[0].shape[-1]
    outcomes = torch.from_numpy(solution).view(*sizes, n, m + 1)
    allocation = outcomes[..., :m].clamp(0, 1)
    payment = outcomes[..., m].clone()
    revenue = float((probability * payment.sum(-1)).sum())
    return FiniteOptimum(tuple(types), allocation, payment, revenue)


def _solve(types: Sequence[Tensor], probability: Tensor, demand: str) -> Any:
    """For each profile and bidder, the chance of each item and the payment."""
    import numpy as np
    from scipy import sparse
    from scipy.optimize import linprog

    n, m = len(types), types[0].shape[-1]
    sizes = [len(own) for own in types]
    profiles = np.arange(math.prod(sizes)).reshape(sizes)
    unknown = np.arange(profiles.size * n * (m + 1)).reshape(-1, n, m + 1)
    read = sparse.eye(unknown.size, format="csr")

    def utility(bidder: int, values: Any, profile: Any) -> Any:
        rows = -read[unknown[profile, bidder, m]]
        for item in range(m):
            rows = rows + sparse.diags(values[:, item]) @ read[unknown[profile, bidder, item]]
        return rows

    matrices, limits = [], []
    for bidder, own in enumerate(types):
        table = np.moveaxis(profiles, bidder, 0).reshape(len(own), -1)
        others = table.shape[1]
        truth, lie = np.nonzero(~np.eye(len(own), dtype=bool))
        values, all_values = own.numpy()[truth].repeat(others, 0), own.numpy().repeat(others, 0)
        matrices.append(utility(bidder, values, table[lie].ravel()) - utility(bidder, values, table[truth].ravel()))
        matrices.append(-utility(bidder, all_values, table.ravel()))
        limits += [np.zeros(len(values)), np.zeros(len(all_values))]
    for item in range(m):
        matrices.append(sum(read[unknown[:, bidder, item]] for bidder in range(n)))
        limits.append(np.ones(profiles.size))
    if demand == "unit":
        for bidder in range(n):
            matrices.append(sum(read[unknown[:, bidder, item]] for item in range(m)))
            limits.append(np.ones(profiles.size))
    cost = np.zeros(unknown.shape)
    cost[..., m] = -probability.numpy().reshape(-1, 1)
    bounds = np.tile([[0.0, 1.0]] * m + [[-np.inf, np.inf]], (profiles.size * n, 1))
    answer = linprog(
        cost.ravel(),
        A_ub=sparse.vstack(matrices, format="csr"),
        b_ub=np.concatenate(limits),
        bounds=bounds,
        method="highs",
        options={"primal_feasibility_tolerance": TOLERANCE, "dual_feasibility_tolerance": TOLERANCE},
    )
    if answer.status != 0:
        raise RuntimeError(f"HiGHS did not solve the linear program: {answer.message}")
    return answer.x


class LinearProgramAuction(Mechanism):
    """The optimal DSIC and IR auction of a finite setting: a table of outcomes, read at the types nearest to the bids.

    Args:
        setting: independent values with finitely many atoms each, and few enough of them.
    """

    strategyproof = "a linear program with every incentive constraint on a finite support, kept to 1e-9"

    def __init__(self, setting: Setting) -> None:
        super().__init__(**setting.shape)
        self.setting = setting
        optimum = optimal_finite(setting)
        self.sizes = [len(own) for own in optimum.types]
        for bidder, own in enumerate(optimum.types):
            self.register_buffer(f"types_{bidder}", own)
        self.allocation: Tensor
        self.payment: Tensor
        self.register_buffer("allocation", optimum.allocation.flatten(0, -3))
        self.register_buffer("payment", optimum.payment.flatten(0, -2))

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids."""
        near = self.setting.project(bids)
        profile = torch.zeros(bids.shape[:-2], dtype=torch.long, device=bids.device)
        for bidder, size in enumerate(self.sizes):
            types = self.get_buffer(f"types_{bidder}").to(bids)
            distance = (near[..., bidder, :].unsqueeze(-2) - types).abs().sum(-1)
            profile = profile * size + distance.argmin(-1)
        return Outcome(self.allocation.to(bids)[profile], self.payment.to(bids)[profile])

    def exact_revenue(self, setting: Setting) -> float | None:
        """The expected payment over all profiles of types, for a setting with the types that the table is for."""
        try:
            types, probability = finite_types(setting)
        except ValueError:
            return None
        own = [self.get_buffer(f"types_{bidder}") for bidder in range(self.n_bidders)]
        if len(types) != len(own) or not all(map(torch.equal, types, own)):
            return None
        return float(probability.flatten() @ self.payment.double().sum(-1))
