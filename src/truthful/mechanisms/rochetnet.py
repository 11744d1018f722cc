"""RochetNet (Duetting et al. 2019): a learned menu for one bidder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from truthful.auction import Outcome
from truthful.mechanisms.menu import FromMenu, require_one_bidder
from truthful.mechanisms.temperature import Temperature
from truthful.settings.base import Setting
from truthful.shapes import Float
from truthful.streams import Stream

BREADTH = 5.0
"""Of the logits, at a score of 1: most chances begin close to 0 or 1, as in known optima, and can still move fast."""

ENTRIES_PER_ITEM = 100


class RochetNet(FromMenu):
    """A menu whose chances and prices are parameters: no lie pays, whatever they are.

    The bidder's utility is max(0, max_k a_k v - p_k), a network of one layer of affine units and a maximum. Chances a_k
    from 0 to 1 make it convex and monotone, and every truthful auction for one bidder has such a utility, whose
    slope is the allocation (Rochet 1987): the menu and the utility network are one rule with one set of parameters.
    They differ in what training smooths.

    As a menu: the bidder chooses with the chances softmax(utility / temperature). A low temperature leaves most
    entries without a slope, a high one prices for a bidder who errs: so it falls. As a utility network: the utility is
    temperature x logsumexp(utility / temperature), whose slope is the same allocation. Its auction is truthful
    at every temperature: the bidder pays temperature x entropy of the choice less than the menu's expected price.

    Args:
        setting: has one bidder; gives the shape, the demand, the unit of prices and the types to begin with.
        entries: in the menu, beside nothing for nothing; null: 100 for each item.
        utility_network: train as a utility network; otherwise as a menu.
        hot, cold: the temperature at the start and at the end of training, in standard deviations of the sum of his
            values.
    """

    def __init__(self, setting: Setting, entries: int | None, utility_network: bool, hot: float, cold: float) -> None:
        super().__init__(**setting.shape)
        require_one_bidder(self)
        if entries is None:
            entries = ENTRIES_PER_ITEM * self.n_items
        if isinstance(entries, bool) or not isinstance(entries, int) or entries < 1:
            raise ValueError(f"entries must be null or a whole number of at least 1, got {entries!r}")
        if not isinstance(utility_network, bool):
            raise ValueError(f"utility_network must be true or false, got {utility_network!r}")
        self._setting = setting.part(Stream.TRAIN)
        self._utility_network = utility_network
        self.temperature = Temperature(setting, hot, cold)
        self.scores = nn.Parameter(torch.zeros(entries, self.n_items + (self.demand == "unit")))
        self.prices = nn.Parameter(torch.zeros(entries))

    def initialise(self, generator: torch.Generator) -> None:
        """Chances from normal scores; each entry at the price at which one random type just takes it."""
        with torch.no_grad():
            self.scores.normal_(generator=generator)
            types = self._setting.sample(len(self.prices), generator)[:, 0]
            self.prices.copy_((types * self._chances()).sum(-1) / self.temperature.unit)

    def anneal(self, progress: float) -> None:
        """The bidder errs less and less."""
        self.temperature.fall(progress)

    def menu(self) -> tuple[Float[Tensor, "k m"], Float[Tensor, "k"]]:
        """As learned; prices are never negative. Nothing for nothing comes last."""
        chances, prices = self._chances(), self.prices.abs() * self.temperature.unit
        return torch.cat([chances, torch.zeros_like(chances[:1])]), torch.cat([prices, torch.zeros_like(prices[:1])])

    def relaxed(self, bids: Float[Tensor, "*b n m"]) -> Outcome:
        """The expected outcome if the bidder chooses by a softmax, or that of the smoothed utility network."""
        chances, prices = self.menu()
        temperature = self.temperature.value
        sharpened = (bids @ chances.T - prices) / temperature
        chosen = sharpened.softmax(-1)
        allocation = chosen @ chances
        if self._utility_network:
            utility = temperature * sharpened.logsumexp(-1)
            return Outcome(allocation, (bids * allocation).sum(-1) - utility)
        return Outcome(allocation, chosen @ prices)

    def _chances(self) -> Float[Tensor, "k m"]:
        """Unit demand: a softmax over the items and nothing."""
        scores = BREADTH * self.scores
        return scores.softmax(-1)[:, : self.n_items] if self.demand == "unit" else scores.sigmoid()
