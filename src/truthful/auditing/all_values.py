"""A certificate for all values of one bidder: branch and bound over values and reports together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from truthful.auditing.arguments import check_effort, check_fit
from truthful.auditing.models import model_of
from truthful.auditing.outcome_tree import OutcomeTree
from truthful.auditing.pair_search import PairSearch
from truthful.mechanisms import Mechanism
from truthful.settings import Setting
from truthful.shapes import Float

MOST_ITEMS = 2
"""Values and reports make twice as many dimensions."""


@dataclass(frozen=True)
class AllValues:
    """lower <= the largest regret of a bidder over all his values <= upper, the others' bids being given.

    Certified: `upper`, for every value in the smallest box that contains the bidder's support and every report in that
    box. Not certified: other bids of the opponents. With one bidder there are none, and the bound is one of the whole
    game. Arithmetic is in float64 and not directed: `upper` includes an outward slack of 1e-9 times the largest value,
    which covers rounding with a wide margin but is no formal proof of it.
    """

    lower: float
    """The regret at `worst_value` is at least this: the gain of `misreport`."""
    upper: float
    """The regret is no more than this at any value, whether closed or not."""
    closed: bool
    """upper - lower <= eps. Otherwise it is open: a budget was spent first."""
    cells: int
    """Pairs of a box of values and a box of reports that were bounded."""
    boxes: int
    """Boxes over which the network was enclosed. Pairs share them, and a box serves for values and for reports."""
    worst_value: Float[Tensor, "m"]
    """The value with the largest regret known."""
    misreport: Float[Tensor, "m"]
    """What to report there."""


@torch.no_grad()
def certify_all_values(
    mechanism: Mechanism,
    setting: Setting,
    opponents: Float[Tensor, "n m"],
    bidder: int,
    eps: float,
    max_boxes: int,
    max_cells: int,
    progress: Callable[[float], None] | None = None,
) -> AllValues:
    """Bound a bidder's regret from above and below over all his values, at one profile of the others' bids.

    What he gains by the report b at the value v is v . x(b) - p(b) - u(v), u being truthful utility. It is bounded over
    pairs of a box of values and a box of reports. For every b, v . x(b) - p(b) is affine in v, so it is no more than
    the multilinear interpolation of its bounds at the corners of the box of values; u has a second-order form there.
    As long as both boxes are small, kinks and curvature of the best-response utility do no harm. The network is
    enclosed over boxes of its inputs only, far fewer than pairs.

    Args:
        mechanism: a RegretNet or SparsemaxRegretNet; left as it is.
        setting: of the same shape and demand, with one or two items.
        opponents: a profile of bids; the row of `bidder` is ignored.
        bidder: who lies.
        eps: closed when the bounds are this close, in units of value.
        max_boxes, max_cells: budgets of what `AllValues` counts under these names.
        progress: called with the share of the budget spent, and with 1 at the end.

    Raises:
        ValueError: a mechanism that cannot be bounded (another one, an activation without a relaxation, parameters
            that are not finite), more than two items, or arguments that do not fit.
    """
    model_of(mechanism, 0)  # or there is an error
    check_fit(mechanism, setting)
    _check_bidder(setting, opponents, bidder)
    check_effort(eps, max_boxes=max_boxes, max_cells=max_cells)
    tree = OutcomeTree(model_of(mechanism, bidder), setting, opponents.double())
    search = PairSearch(tree, eps, max_boxes, max_cells)
    search.run(progress)
    upper = max(search.best, search.dropped)
    closed = upper - search.best <= eps
    return AllValues(search.best, upper, closed, search.cells, len(tree), search.value, search.report)


def _check_bidder(setting: Setting, opponents: Tensor, bidder: int) -> None:
    """Raise ValueError unless it is a bidder of the setting, with opponents, and few items."""
    n, m = setting.n_bidders, setting.n_items
    if m > MOST_ITEMS:
        raise ValueError(f"all values can be certified with at most {MOST_ITEMS} items, got {m}")
    if isinstance(bidder, bool) or not isinstance(bidder, int) or not 0 <= bidder < n:
        raise ValueError(f"bidder must be a whole number from 0 to {n - 1}, got {bidder!r}")
    if opponents.shape != (n, m):
        raise ValueError(f"opponents must be of shape ({n}, {m}), got {tuple(opponents.shape)}")
    others = torch.arange(n, device=opponents.device) != bidder
    low, high = setting.bounds(opponents)
    if not bool(((opponents >= low) & (opponents <= high))[others].all()):
        raise ValueError("the opponents' bids must lie in the setting's support, got bids outside its bounds or NaN")
