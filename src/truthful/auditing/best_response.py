"""Revenue when bidders play what is best for them instead of the truth."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from truthful.auction import revenue, with_reports
from truthful.auditing.instances import ROWS
from truthful.mechanisms import Mechanism
from truthful.settings import Setting
from truthful.shapes import Float

MENU = 2**14
"""Quasi-random reports in the menu, beside the corners and the misreports found."""


def has_menu(setting: Setting) -> bool:
    """Whether a mechanism is a menu from which its bidder picks: there is one, and no context that it depends on."""
    return setting.n_bidders == 1 and not setting.features


@torch.no_grad()
def best_response_revenue(
    mechanism: Mechanism, setting: Setting, values: Float[Tensor, "b 1 r"], misreport: Float[Tensor, "b 1 r"]
) -> Float[Tensor, "b"]:
    """One bidder: what each value pays when it picks its favourite entry of one fixed finite menu.

    The menu is the same for every value: the mechanism's outcomes at quasi-random reports, at the misreports found and
    at the corners of the support, and nothing for nothing. Choosing from a fixed menu is exactly strategyproof and
    individually rational, whatever the mechanism's regret. Ties go against the seller.

    Args:
        mechanism: in float64, for one bidder.
        setting: gives the support.
        values: true values, in float64.
        misreport: reports to add to the menu.

    Returns:
        The payment of every value.
    """
    m, r = setting.n_items, setting.reported
    unit = SobolEngine(r, scramble=True, seed=0).draw(MENU, dtype=torch.float64).to(values.device)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * r).view(-1, r).to(values) if r <= 10 else unit[:0]
    low, high = setting.bounds(values)
    drawn = setting.project(low + (high - low) * torch.cat([unit, corners]).unsqueeze(1))
    parts = [mechanism(part) for part in torch.cat([drawn, misreport]).split(ROWS)]
    nothing = torch.zeros(1, m + 1).to(values)
    entries = torch.cat([torch.cat([part.allocation.squeeze(1), part.payment], -1) for part in parts] + [nothing])
    entries = entries[entries[:, -1].argsort(stable=True)]  # cheapest first, and argmax takes the first of several
    allocation, price = entries[:, :-1], entries[:, -1]
    chosen = []
    for part in values.squeeze(1).split(ROWS // 32):
        worth = part[:, :m] @ allocation.T - price
        if setting.budgeted:
            worth = worth.masked_fill(price > part[:, m:], -torch.inf)
        chosen.append(worth.argmax(-1))
    return price[torch.cat(chosen)]


@torch.no_grad()
def revenue_under(
    mechanism: Mechanism, values: Float[Tensor, "b n c"], misreport: Float[Tensor, "b n r"]
) -> Float[Tensor, "b"]:
    """Revenue of each profile when every bidder plays his found misreport, all at once.

    A misreport was found against truthful opponents, so this is no equilibrium; it says how much of the truthful
    revenue survives when the lies that the audit found are told.
    """
    return torch.cat([revenue(mechanism(part)) for part in with_reports(values, misreport).split(ROWS)])
