"""A certificate: an upper bound of a bidder's regret, by branch and bound over his reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.auditing.arguments import check_effort, check_fit
from truthful.auditing.branching import Search
from truthful.auditing.models import model_of
from truthful.mechanisms import Mechanism
from truthful.settings import Setting
from truthful.shapes import Bool, Float, Int

INSTANCES = 256
"""Instances searched at once, if their budgets allow."""
LIVE = 2**21
"""Boxes that may be alive at once; instances beyond wait."""


@dataclass(frozen=True)
class Certificate:
    """lower <= regret <= upper for every instance: a profile and a bidder.

    Arithmetic is in float64 and not directed: `upper` includes an outward slack of 1e-9 times the largest value, which
    covers rounding with a wide margin but is no formal proof of it.
    """

    lower: Float[Tensor, "k"]
    """Gain of the best misreport known, in float64; at least that of the incumbent given."""
    upper: Float[Tensor, "k"]
    """Regret is no more than this, whether the instance is closed or not."""
    closed: Bool[Tensor, "k"]
    """upper - lower <= eps. Otherwise the instance is open: the budget of boxes was spent first."""
    boxes: Int[Tensor, "k"]
    """Boxes bounded."""
    misreport: Float[Tensor, "k m"]
    """A report that gains `lower`."""


@torch.no_grad()
def certify(
    mechanism: Mechanism,
    setting: Setting,
    values: Float[Tensor, "k n c"],
    bidder: Int[Tensor, "k"],
    misreport: Float[Tensor, "k m"],
    eps: float,
    max_boxes: int,
    radius: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Certificate:
    """Bound the regret of `bidder[k]` at the profile `values[k]` from above and below.

    Reports range over the bidder's support; if that is no box, upper bounds hold for the smallest box that contains it
    (and an instance may stay open because of a report in a gap). With `radius`, only over reports that differ from the
    truth by at most that share of the support's width in every item: a statement about small lies only.

    Args:
        mechanism: a RegretNet or SparsemaxRegretNet; left as it is.
        setting: of the same shape and demand.
        values: one profile an instance.
        bidder: who lies.
        misreport: the best misreport known (the truth will do, at a price); moved into the region searched.
        eps: an instance is closed when its bounds are this close, in units of value.
        max_boxes: an instance that would need more boxes than this stays open.
        radius: None for all reports.
        progress: called with the share of instances done.

    Raises:
        ValueError: a mechanism that cannot be bounded (another one, an activation without a relaxation, parameters
            that are not finite), or arguments that do not fit.
    """
    model_of(mechanism, 0)  # or there is an error
    check_fit(mechanism, setting)
    _check_instances(setting, values, bidder, misreport)
    check_effort(eps, max_boxes=max_boxes)
    if radius is not None and not radius > 0:
        raise ValueError(f"radius must be None or positive, got {radius!r}")
    values, misreport = values.double(), misreport.double()
    count = len(values)
    lower, upper = values.new_zeros(count), values.new_zeros(count)
    boxes, found = torch.zeros_like(bidder), misreport.clone()
    done = 0
    for i in bidder.unique().tolist():
        model = model_of(mechanism, i)
        members = (bidder == i).nonzero()[:, 0]
        for part in members.split(max(1, min(INSTANCES, LIVE // max_boxes))):
            search = Search(model, setting, values[part], misreport[part], eps, max_boxes, radius)
            lower[part], upper[part], boxes[part], found[part] = search.run()
            done += len(part)
            if progress is not None:
                progress(done / count)
    return Certificate(lower, upper, upper - lower <= eps, boxes, found)


def _check_instances(setting: Setting, values: Tensor, bidder: Tensor, misreport: Tensor) -> None:
    """Raise ValueError unless everything is for the same instances of the setting."""
    n, m = setting.n_bidders, setting.n_items
    if values.ndim != 3 or values.shape[1:] != (n, m):
        raise ValueError(f"values must be of shape (k, {n}, {m}), got {tuple(values.shape)}")
    k = len(values)
    for name, tensor, shape in (("bidder", bidder, (k,)), ("misreport", misreport, (k, m))):
        if tensor.shape != shape:
            raise ValueError(f"{name} must be of shape {shape}, got {tuple(tensor.shape)}")
    if bidder.dtype != torch.int64 or bool(((bidder < 0) | (bidder >= n)).any()):
        raise ValueError(f"bidder must hold whole numbers (int64) from 0 to {n - 1}, got {bidder.unique().tolist()}")
    for name, tensor in (("values", values), ("misreport", misreport)):
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    low, high = setting.bounds(values)
    if bool(((values < low) | (values > high)).any()):
        raise ValueError("values must lie in the setting's support, got values outside its bounds")
