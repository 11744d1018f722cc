"""MyersonNet (Duetting et al. 2019): learned virtual values for one item."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from truthful.auction import Outcome
from truthful.mechanisms.base import Mechanism, at_least_one
from truthful.mechanisms.temperature import Temperature
from truthful.settings.base import Setting
from truthful.shapes import Float
from truthful.streams import Stream


class MyersonNet(Mechanism):
    """The item to the highest learned virtual value, if that is positive, at the smallest bid that would still win.

    Each bidder has an increasing function of his bid, min over groups of max over lines of exp(s) bid + h, which can be
    inverted: no lie pays, whatever the parameters are (Myerson 1981). Among equals the lowest index wins.

    In training each bidder buys at his price, which does not depend on his bid, with the chance
    sigmoid((bid - price) / temperature), as if he erred. In units of bids, not of virtual values, which the parameters
    could shrink: a lottery of the item at prices that nobody would pay would then seem to earn anything.

    Args:
        setting: has one item; gives the number of bidders, the unit of bids and the types to begin with.
        groups, lines: of each bidder's function.
        hot, cold: the temperature of a sale at the start and at the end of training, in standard deviations of a value.
    """

    strategyproof = "one item to the highest increasing function of the own bid, at the threshold: Myerson 1981"

    def __init__(self, setting: Setting, groups: int, lines: int, hot: float, cold: float) -> None:
        super().__init__(**setting.shape)
        if self.n_items != 1:
            raise ValueError(f"MyersonNet is for one item, got {self.n_items}")
        at_least_one(groups=groups, lines=lines)
        self._setting = setting.part(Stream.TRAIN)
        self.temperature = Temperature(setting, hot, cold)
        self.slopes = nn.Parameter(torch.zeros(self.n_bidders, groups, lines))
        """Their logarithms."""
        self.heights = nn.Parameter(torch.zeros(self.n_bidders, groups, lines))
        """At a bid of 0."""

    def initialise(self, generator: torch.Generator) -> None:
        """A rise of the order of the bid's, in which each line is the value between two random types.

        Lines that are nowhere the value would never learn. Those of a group follow each other from flat to steep, and
        the next group begins flat.
        """
        groups, lines = self.slopes.shape[1:]
        with torch.no_grad():
            self.slopes.copy_(torch.linspace(-1, 1, lines))
            types = self._setting.sample(groups * lines, generator).squeeze(-1).T.sort().values / self.temperature.unit
            slopes = self.slopes.flatten(1).exp()
            rises = slopes[:, :-1] * types.diff()
            starts = types[:, :1] - 1 + torch.cat([torch.zeros_like(types[:, :1]), rises.cumsum(1)], 1)
            self.heights.copy_((starts - slopes * types).reshape(self.heights.shape))

    def anneal(self, progress: float) -> None:
        """Bidders err less and less."""
        self.temperature.fall(progress)

    def virtual(self, bids: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
        """Each bidder's virtual value."""
        lines = bids[..., None, None] * self.slopes.exp() + self.heights * self.temperature.unit
        return lines.amax(-1).amin(-1)

    def inverse(self, virtual: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
        """The bid with this virtual value; it may be negative."""
        lines = (virtual[..., None, None] - self.heights * self.temperature.unit) * (-self.slopes).exp()
        return lines.amin(-1).amax(-1)

    def forward(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The outcome for each profile of bids."""
        virtual, price = self._thresholds(bids)
        index = torch.arange(self.n_bidders, device=bids.device)
        wins = ((virtual.argmax(-1, keepdim=True) == index) & (virtual > 0)).to(bids)
        return Outcome(wins.unsqueeze(-1), wins * price)

    def relaxed(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """Chances of sales that are close to 0 or 1 unless a bid is close to its price; near ties they may exceed 1."""
        _, price = self._thresholds(bids)
        sold = ((bids.squeeze(-1) - price) / self.temperature.value).sigmoid()
        return Outcome(sold.unsqueeze(-1), sold * price)

    def exported(self) -> tuple[str, dict[str, Any]] | None:
        """The lines, in the currency."""
        heights = self.heights.double() * self.temperature.unit.double()
        return "myersonnet", {"slopes": self.slopes.double().exp().tolist(), "heights": heights.tolist()}

    def _thresholds(self, bids: Float[Tensor, "*b n m"]) -> tuple[Float[Tensor, "*b n"], Float[Tensor, "*b n"]]:
        """Virtual values, and the smallest bids that win against the others'."""
        virtual = self.virtual(bids.squeeze(-1))
        own = torch.eye(self.n_bidders, dtype=torch.bool, device=bids.device)
        rivals = virtual.unsqueeze(-2).masked_fill(own, -torch.inf).amax(-1)
        return virtual, self.inverse(rivals.clamp_min(0)).clamp_min(0)
