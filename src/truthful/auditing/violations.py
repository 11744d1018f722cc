"""What a trained auction makes of its constraints."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from truthful.auditing.instances import ROWS
from truthful.auditing.report import percentile, standard_error
from truthful.constraints import Constraint
from truthful.mechanisms import Mechanism
from truthful.results import WITHIN
from truthful.shapes import Float


@torch.no_grad()
def audit_constraints(
    mechanism: Mechanism, constraints: Mapping[str, Constraint], values: Float[Tensor, "b n c"]
) -> dict[str, dict[str, Any]]:
    """The violations of truthful reports, as plain types, by the constraint's name.

    Args:
        mechanism: on any device; left as it is.
        constraints: by name.
        values: the profiles of an audit, in float64.

    Returns:
        For each: `violation`, the mean over profiles, with its standard error, `violation_p95` and `violation_max`; the
        `tolerance`, and whether the mean is `met`, at most 10 % above it, as with budgets; the multiplier that training
        ended with; and what the constraint has learned.
    """
    if not constraints:
        return {}
    exact = copy.deepcopy(mechanism).double()
    parts = [(part, exact(part)) for part in values.split(ROWS)]
    found = {}
    for name, constraint in constraints.items():
        judge = copy.deepcopy(constraint).double()
        violation = torch.cat([judge(*part) for part in parts])
        mean, tolerance = float(violation.mean()), float(constraint.tolerance)
        found[name] = {
            "violation": mean,
            "violation_se": standard_error(violation),
            "violation_p95": percentile(violation, 0.95),
            "violation_max": float(violation.max()),
            "tolerance": tolerance,
            "met": mean <= (1 + WITHIN) * tolerance,
            "multiplier": float(constraint.dual.multiplier.mean()),
            **constraint.learned,
        }
    return found
