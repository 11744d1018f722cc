"""RegretNet's training step as the literature's code writes it, in plain PyTorch: the reference for timings.

Masks and tiling: the batch is repeated once a bidder, the misreports are masked in, every pass is a pass of its own.
The same algorithm as `truthful.iteration`, nothing shared and nothing frozen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from truthful.mechanisms import RegretNet


class Textbook:
    """One network, its optimiser, its multiplier.

    Args:
        network: what is trained; additive or unit demand.
        steps, length: of the misreport search, Adam reset at every visit.
    """

    def __init__(self, network: RegretNet, steps: int, length: float) -> None:
        self.network, self.steps, self.length = network, steps, length
        self.optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, eps=1e-7)
        self.multiplier = 10.0

    def step(self, values: Tensor, start: Tensor) -> Tensor:
        """One iteration on `values` (b, n, m) with misreports from `start`; returns the misreports found."""
        batch, n, m = values.shape
        tiled = values.unsqueeze(0).repeat(n, 1, 1, 1)  # bidder who lies, profile, bidder, item
        mask = torch.zeros(n, batch, n, m)
        mask[torch.arange(n), :, torch.arange(n), :] = 1.0
        own = mask[..., 0]

        def lying(misreport: Tensor) -> Tensor:
            bids = tiled * (1 - mask) + misreport.unsqueeze(0).repeat(n, 1, 1, 1) * mask
            outcome = self.network(bids.reshape(n * batch, n, m))
            won = (tiled.reshape(n * batch, n, m) * outcome.allocation).sum(-1)
            utility: Tensor = ((won - outcome.payment).reshape(n, batch, n) * own).sum(-1)
            return utility.transpose(0, 1)

        misreport = nn.Parameter(start.clone())
        ascent = torch.optim.Adam([misreport], lr=self.length, eps=1e-7)
        for _ in range(self.steps):
            ascent.zero_grad()
            (-lying(misreport).sum()).backward()
            ascent.step()
            with torch.no_grad():
                misreport.clamp_(0, 1)
        outcome = self.network(values)
        honest = (values * outcome.allocation).sum(-1) - outcome.payment
        regret = (lying(misreport.detach()) - honest).relu().mean(0)
        revenue = outcome.payment.sum(-1).mean()
        self.optimizer.zero_grad()
        (-revenue + self.multiplier * regret.sum()).backward()
        self.optimizer.step()
        ratio = max(regret.sum().item() / revenue.item(), 1e-9)
        self.multiplier = max(0.0, self.multiplier + 0.1 * (math.log(ratio) - math.log(0.01)))
        return misreport.detach()
