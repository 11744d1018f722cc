"""What training minimises in the name of regret, and how misreports are searched for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from truthful.auction import Outcome, deviation_utility, utility
from truthful.mechanisms.base import Mechanism
from truthful.settings.base import Setting
from truthful.shapes import Float


@dataclass(frozen=True)
class Found:
    """What a search found for every profile and bidder. All of it is detached."""

    best: Float[Tensor, "*b n r"]
    """The best misreport seen; the truth where nothing better was seen."""
    gain: Float[Tensor, "*b n"]
    """What the best misreport earns over the truth: a lower bound on regret, never negative."""
    last: Float[Tensor, "*b n r"]
    """The last iterate, which need not be the best."""


Begun = tuple[Any, ...]
"""Tensors, and tuples of them, that a search begins with. The first axis of each is the batch."""

Run = Callable[..., Any]
"""How a function of a module and tensors is executed, run(function, module, *arguments): as it is, or compiled (see
`truthful.engine`)."""


def directly(function: Callable[..., Any], module: nn.Module, *arguments: Any) -> Any:
    """Execute it as it is."""
    return function(module, *arguments)


class Search(ABC):
    """Looks for profitable misreports in the support. Changes none of its inputs and no parameter's gradient."""

    steps: int
    """Gradient steps it takes."""
    varies: bool
    """Whether it looks at many distances from the same start."""

    def draw(self, values: Float[Tensor, "b n c"], generator: torch.Generator) -> tuple[Tensor, ...]:
        """The random numbers of a visit, if it needs any."""
        return ()

    @abstractmethod
    def climb(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        start: Float[Tensor, "*s n r"],
        drawn: tuple[Tensor, ...] = (),
        gradient: Float[Tensor, "*s n r"] | None = None,
        run: Run = directly,
    ) -> Float[Tensor, "*s n r"]:
        """Only the last iterate, for training, which evaluates it anyway.

        `drawn` is what `draw` drew; `gradient` the gradient at the start where the caller has it already; `run`
        executes the other steps.
        """

    @abstractmethod
    def __call__(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        start: Float[Tensor, "*s n r"],
        drawn: tuple[Tensor, ...] = (),
    ) -> Found:
        """The best misreport seen from `start` on. `start` may have more leading axes (`s`) than `values`."""


class RegretMode(nn.Module, ABC):
    """The regret that training sees. Kept misreports are a buffer of the mode, and so in the checkpoint.

    A visit of a batch has four parts: `begin` draws and looks up, `find` searches for misreports, `forward` is the
    regret there, `store` keeps them. The two in the middle are functions of tensors alone (no randomness, nothing that
    waits for a device, no shape that depends on a number), so that an engine can compile them, and take any number of
    leading axes before the batch.
    """

    local: bool
    """Whether only the truth's neighbourhood is searched, relying on the sufficiency of local incentive
    compatibility."""
    evaluations: int
    """Evaluations of all deviations, forward and backward, that a search takes: what an iteration costs."""
    staged: bool = False
    """Whether the search is long enough to be executed by itself, before the truthful outcome is there."""
    fixed_step: bool = False
    """Whether it only ever looks at one fixed distance from the truth."""
    starts_at_truth: bool = False
    """Whether it can use the gradient of the truthful outcome, which then has one."""
    divisible: bool = True
    """Whether each profile's search is its own affair, so that processes can share a batch."""
    learns: bool = False
    """Whether the search itself learns: then it has parameters, which members of a population cannot share."""
    needs_theorem: bool = False
    """Whether it looks for no lie at all, and so is for mechanisms in which a theorem says that none pays."""
    follows: bool = False
    """Whether it moves what it stores along the slope there."""

    def at(self, progress: float) -> RegretMode:
        """The mode after the share `progress` of training: this one, unless it hands over to another."""
        return self

    @abstractmethod
    def prepare(self, setting: Setting, sample: Float[Tensor, "s n c"] | None, generator: torch.Generator) -> None:
        """Check the preconditions and allocate the buffers, once, before training or loading a checkpoint.

        `sample` is the fixed training sample, or None if every batch is fresh. Raises ValueError if the mode does not
        fit the setting or the data.
        """

    @abstractmethod
    def begin(
        self, setting: Setting, values: Float[Tensor, "b n c"], rows: slice | None, generator: torch.Generator
    ) -> Begun:
        """What the search starts from: kept misreports, or draws from `generator`, which is for this iteration alone.

        `rows` are the rows of the fixed sample that `values` are, None for a fresh batch.
        """

    @abstractmethod
    def find(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        begun: Begun,
        truthful: Outcome | None = None,
        run: Run = directly,
    ) -> Float[Tensor, "*b n r"]:
        """Misreports, detached.

        `truthful` is the mechanism's outcome at `values` with its graph, None in a `staged` mode. Where the mode
        `starts_at_truth`, `values` require a gradient.
        """

    def forward(
        self,
        mechanism: Mechanism,
        setting: Setting,
        values: Float[Tensor, "*b n c"],
        truthful: Outcome,
        misreport: Float[Tensor, "*b n r"],
    ) -> Float[Tensor, "*p n"]:
        """Regret per bidder, differentiable in the mechanism.

        relu(u_i(v_i; (b_i, v_-i)) - u_i(v_i; v)) at the misreport b_i, the mean over the batch (the last axis of `b`).
        `values` require a gradient where the mode `starts_at_truth`.
        """
        values = values.detach()
        gain = deviation_utility(mechanism, values, misreport) - utility(values, truthful)
        return gain.relu().mean(-2)

    def follow(
        self,
        setting: Setting,
        begun: Begun,
        misreport: Float[Tensor, "*b n r"],
        slope: Float[Tensor, "*b n r"],
    ) -> Float[Tensor, "*b n s"]:
        """What to store. `slope` points up the regret in the misreport; its size means nothing. Compiled, too."""
        return misreport

    def store(self, rows: slice | None, misreport: Float[Tensor, "b n s"]) -> None:
        """Store what was found (`follow`) for the next visit, if the mode does."""


def check_sufficiency(setting: Setting) -> None:
    """Raise ValueError where honesty near the truth is not known to imply honesty."""
    if setting.budgeted:
        raise ValueError(
            "a local regret says nothing about truthfulness here: with private budgets local incentive compatibility "
            "is not known to suffice; use regret=standard, or give the mode assume_sufficient=true "
            "(regret.assume_sufficient=true)"
        )
    if not setting.convex_support:
        raise ValueError(
            "a local regret says nothing about truthfulness here: local incentive compatibility is known to suffice "
            "only for additive or unit-demand values on a convex support (Carroll 2012), and this setting's support is "
            "not convex; use regret=standard, or give the mode assume_sufficient=true (regret.assume_sufficient=true)"
        )
