"""Regret at the reports of a network that learns to lie: the misreporter mode."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from truthful.auction import Outcome, deviation_utility
from truthful.errors import whole
from truthful.mechanisms.base import Mechanism
from truthful.regret.ascent import frozen
from truthful.regret.base import Begun, RegretMode, Run, directly
from truthful.regret.steps import positive
from truthful.settings.base import Setting
from truthful.shapes import Float


class Misreporter(RegretMode):
    """relu of the gain at the reports of a network, trained beside the auction to raise it (Rahme et al. 2021, ALGnet).

    The network sees the whole profile and makes one misreport for each bidder; it takes one Adam step an iteration on
    the sum of the deviators' utilities, after its reports were used. So lies are learned once for all profiles, not
    searched for each.

    Args:
        depth: hidden layers.
        width: units in each.
        learning_rate: of its Adam.
    """

    local = False
    evaluations = 1
    learns = True
    divisible = False
    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7

    def __init__(self, depth: int, width: int, learning_rate: float) -> None:
        super().__init__()
        self.depth, self.width = whole("regret.depth", depth, 1), whole("regret.width", width, 1)
        self.learning_rate = positive("regret.learning_rate", learning_rate)

    def prepare(self, setting: Setting, sample: Float[Tensor, "s n c"] | None, generator: torch.Generator) -> None:
        """Draw the network. Raises ValueError if the support is discrete: its projection has no slope to learn by."""
        if not setting.project(setting.low.clone().requires_grad_()).requires_grad:
            raise ValueError(
                "a misreporter learns by the slope of its reports, and on a discrete support they have none; use "
                "regret=standard"
            )
        sizes = [setting.n_bidders * setting.reported, *[self.width] * self.depth]
        layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.Tanh())]
        self.network = nn.Sequential(*layers, nn.Linear(self.width, sizes[0]))
        for layer in self.network:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)
        self.mean, self.square = copy.deepcopy(self.network), copy.deepcopy(self.network)
        for moment in (self.mean, self.square):
            for parameter in moment.parameters():
                parameter.requires_grad_(False).zero_()
        self.register_buffer("powers", torch.ones(2, dtype=torch.float64))

    def begin(
        self, setting: Setting, values: Float[Tensor, "b n c"], rows: slice | None, generator: torch.Generator
    ) -> Begun:
        """Nothing."""
        return ()

    def find(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        begun: Begun,
        truthful: Outcome | None = None,
        run: Run = directly,
    ) -> Float[Tensor, "*b n r"]:
        """The network's reports; then it learns."""
        values = values.detach()
        low, high = setting.bounds(values)
        parameters = list(self.network.parameters())
        with frozen(mechanism), torch.enable_grad():
            truth = setting.reports(values)
            scores = self.network(((truth - low) / (high - low)).flatten(-2)).view(truth.shape)
            report = setting.project(low + (high - low) * scores.sigmoid())
            reached = deviation_utility(mechanism, values, report)
            gradients = torch.autograd.grad(reached.sum(-1).mean(), parameters)
        self._learn(parameters, gradients)
        return report.detach()

    @torch.no_grad()
    def _learn(self, parameters: Sequence[Tensor], gradients: tuple[Tensor, ...]) -> None:
        """One step of Adam, upwards, in place."""
        powers = self.get_buffer("powers")
        powers.mul_(torch.tensor([self.BETA1, self.BETA2], dtype=powers.dtype, device=powers.device))
        first, second = (1 - powers).to(gradients[0]).unbind()
        moments = zip(self.mean.parameters(), self.square.parameters(), strict=True)
        for parameter, gradient, (mean, square) in zip(parameters, gradients, moments, strict=True):
            mean.lerp_(gradient, 1 - self.BETA1)
            square.mul_(self.BETA2).addcmul_(gradient, gradient, value=1 - self.BETA2)
            move = mean / first / ((square / second).sqrt() + self.EPSILON)
            parameter.add_(self.learning_rate * move)
