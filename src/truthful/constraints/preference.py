"""Preferences that are known by examples only: a score learned from labelled allocations."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from truthful.auction import Outcome
from truthful.constraints.base import Constraint, share
from truthful.constraints.examples import Examples, read_examples
from truthful.duals import Dual
from truthful.errors import whole
from truthful.results import file_digest
from truthful.settings import Setting
from truthful.shapes import Float
from truthful.streams import Stream, generator


class Preference(Constraint):
    """Allocations are accepted with a probability of at least `least`, by a network that has learned who accepts what.

    PreferenceNet (Peri et al. 2021), with three differences: the score depends on the allocation alone, not on bids and
    payments; it is learned once, from the examples of a file, and then frozen; and there is a multiplier, not a fixed
    weight. The violation is log least - log score, where that is above 0: how much more surprising a yes is than it
    may be. Its slope does not vanish where the network is sure of a no.

    The score has a seed of its own, as it is part of the problem: runs of several seeds have the same.

    Args:
        setting, tolerance, dual: as in every constraint.
        file: labelled allocations, see `read_examples`; relative to the working directory.
        sha256: what the file's digest must be, or None for any.
        least: the smallest acceptable probability, below 1.
        width: units in each of the two hidden layers.
        steps: of Adam, each on all examples that are not held out.
        learning_rate: of Adam.
        weight_decay: decoupled (AdamW): it keeps the score from being sure of what few examples say.
        held_out: share of the examples that `accuracy` is measured on.
        seed: of the network's start and of which examples are held out.
    """

    accuracy: Tensor
    """Share of the examples held out that the score is right about ..."""
    majority: Tensor
    """... and the share of them that have the more frequent label."""

    def __init__(
        self,
        setting: Setting,
        tolerance: float,
        dual: Callable[..., Dual],
        file: str,
        sha256: str | None,
        least: float,
        width: int,
        steps: int,
        learning_rate: float,
        weight_decay: float,
        held_out: float,
        seed: int,
    ) -> None:
        super().__init__(setting, tolerance, dual)
        if not isinstance(file, str) or not file:
            raise ValueError(f"file must be the path of a CSV or .npz file of labelled allocations, got {file!r}")
        for name, count in (("width", width), ("steps", steps)):
            whole(name, count, 1)
        if not (learning_rate > 0 and weight_decay >= 0):
            raise ValueError(
                f"learning_rate must be above 0 and weight_decay at least 0, got {learning_rate!r} and {weight_decay!r}"
            )
        self.file, self.sha256, self.least = Path(file), sha256, share("least", least, math.nextafter(1, 0))
        self.steps, self.learning_rate, self.weight_decay = steps, learning_rate, weight_decay
        self.held_out, self.seed = share("held_out", held_out, 0.9), seed
        sizes = (self.n_bidders * self.n_items, width, width, 1)
        layers = [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), nn.Tanh())]
        self.score = nn.Sequential(*layers[:-1]).requires_grad_(False)
        for name in ("accuracy", "majority"):
            self.register_buffer(name, torch.tensor(math.nan))

    def forward(self, values: Float[Tensor, "*b n c"], outcome: Outcome) -> Float[Tensor, "*b"]:
        """How much more surprising a yes is than it may be, in nats."""
        return (math.log(self.least) - logsigmoid(self._logits(outcome.allocation))).relu()

    def _logits(self, allocation: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b"]:
        logits: Tensor = self.score(allocation.flatten(-2)).squeeze(-1)
        return logits

    @property
    def learned(self) -> dict[str, float]:
        """How good the score is."""
        return {"accuracy": float(self.accuracy), "majority": float(self.majority)}

    def prepare(self) -> None:
        """Learn the score; warn where it has not learned anything."""
        digest = file_digest(self.file)
        if self.sha256 not in (None, digest):
            raise ValueError(
                f"{self.file} is not the file that was used before: its sha256 must be {self.sha256}, got {digest}; "
                "sha256=null takes any"
            )
        examples = read_examples(self.file, self.n_bidders, self.n_items)
        draws = generator(self.seed, Stream.ORDER)
        order = torch.randperm(len(examples.label), generator=draws)
        count = max(1, round(self.held_out * len(order)))
        if count == len(order):
            raise ValueError(f"{self.file} has {len(order)} examples, too few to hold out {self.held_out:g} of them")
        held_out = examples[order[:count]]
        self._fit(examples[order[count:]])
        right = (self._logits(held_out.allocation) > 0) == (held_out.label > 0.5)
        self.accuracy.fill_(right.double().mean())
        accepted = float(held_out.label.mean())
        self.majority.fill_(max(accepted, 1 - accepted))
        if self.accuracy <= self.majority:
            warnings.warn(
                f"the score learned from {self.file} is right about {float(self.accuracy):.1%} of the {count} examples "
                f"held out, and always saying the same about {float(self.majority):.1%}: it has learned nothing",
                stacklevel=2,
            )

    def _fit(self, examples: Examples) -> None:
        start = generator(self.seed, Stream.INIT)
        for layer in self.score:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, generator=start)
                nn.init.zeros_(layer.bias)
        parameters = list(self.score.requires_grad_().parameters())
        optimiser = torch.optim.AdamW(parameters, self.learning_rate, weight_decay=self.weight_decay)
        for _ in range(self.steps):
            loss = binary_cross_entropy_with_logits(self._logits(examples.allocation), examples.label)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        self.score.requires_grad_(False)
