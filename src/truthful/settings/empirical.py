"""Observed valuations in place of a law: who valued what in past auctions."""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from truthful.errors import nearest
from truthful.results import file_digest
from truthful.settings.base import Bound, Setting, broadcast_bound
from truthful.settings.observed import ROLES, Observations, read_observations
from truthful.shapes import Float, Int
from truthful.streams import Stream

RESAMPLES = ("auctions", "bidders")
PARTS = (Stream.TRAIN, Stream.HELD_OUT, Stream.AUDIT)
FEWEST = 2
"""Auctions in a part: a standard error needs two."""


class Empirical(Setting):
    """Profiles drawn from observed auctions, each of which is in one of three parts: training, held-out, audit.

    The support is a box: the smallest around all the data, or the one given; so misreports range over the box, not over
    the values observed. `part` says which auctions a stream draws from; the setting itself draws from the training
    part, so that whatever is fitted to it has seen neither of the others.

    A draw uses no auction twice before all of its part have come (Davison, Hinkley and Schechtman 1986, the balanced
    bootstrap): up to `observations` profiles are as independent as the auctions were, and there are no more than that.

    Args:
        file: CSV or Parquet, long or wide, see `read_observations`; relative to the working directory.
        sha256: what the file's digest must be, or None for any.
        columns: names of the columns `auction`, `bidder`, `item` and `value`.
        n_bidders, n_items: None, or what the file must have.
        low, high: bounds of the support as in every setting; None for those of the data, for each bidder and item (over
            all bidders if they are exchangeable).
        exchangeable: bidders have no identity: their order in each drawn profile is random, and their labels tell them
            apart within an auction only.
        resample: `auctions`: a profile is a whole auction. `bidders`: each bidder's row comes from an auction of its
            own, which assumes that bidders are independent of each other (a bidder's own values stay together).
        split: shares of the auctions for training, held-out audits and the final audit.
        split_seed: which auctions go where, by their labels alone.
        demand: `additive` or `unit`.

    Raises:
        ValueError: a mistake in the file, with its line, or in the arguments.
    """

    convex_support = True

    def __init__(
        self,
        file: str,
        sha256: str | None,
        columns: Mapping[str, str],
        n_bidders: int | None,
        n_items: int | None,
        low: Bound | None,
        high: Bound | None,
        exchangeable: bool,
        resample: str,
        split: Sequence[float],
        split_seed: int,
        demand: str,
    ) -> None:
        _check(file, columns, resample, split, split_seed)
        path = Path(file)
        digest = file_digest(path)
        if sha256 not in (None, digest):
            raise ValueError(
                f"{path} is not the file that was used before: its sha256 must be {sha256}, got {digest}; "
                "setting.sha256=null takes any"
            )
        seen = read_observations(path, columns, exchangeable)
        _, n, m = seen.values.shape
        for name, given, found in (("n_bidders", n_bidders, n), ("n_items", n_items, m)):
            if given is not None and given != found:
                raise ValueError(f"{name} must be null or {found}, as in {path}, got {given!r}")
        super().__init__(n, m, *_box(path, seen, low, high, exchangeable), demand)
        self.exchangeable_bidders, self.resample = exchangeable, resample
        self._parts = _split(path, seen, split, split_seed)
        self._values = self._parts[Stream.TRAIN]
        self.observations = len(self._values)
        self._observed = {
            "file": file,
            "sha256": digest,
            "auctions": len(seen.auctions),
            **{stream.name.lower(): len(part) for stream, part in self._parts.items()},
            "bidders": seen.bidders,
            "items": seen.items,
        }

    @property
    def observed(self) -> dict[str, Any]:
        """The file, and how many of its auctions are in each part."""
        return self._observed

    def part(self, stream: Stream) -> Empirical:
        """The same with the auctions of this stream; those for training unless it is HELD_OUT or AUDIT."""
        part = copy.copy(self)
        part._values = self._parts.get(stream, self._parts[Stream.TRAIN])
        part.observations = len(part._values)
        if not part.observations:
            name = stream.name.lower()
            raise ValueError(f"setting.split leaves no auctions of {self._observed['file']} for the part {name}")
        return part

    def sample(self, size: int, generator: torch.Generator) -> Float[Tensor, "{size} n m"]:
        """Draw `size` profiles on the generator's device, in float32: none twice before all have come."""
        count, n = self.observations, self.n_bidders
        if not count:
            raise ValueError(f"setting.split leaves no auctions of {self._observed['file']} for training")
        rounds = math.ceil(size / count)
        everyone = torch.arange(n, device=generator.device)
        if self.resample == "auctions":
            auction = _shuffled(rounds, count, generator).view(-1, 1)
            bidder = _shuffled(rounds * count, n, generator) if self.exchangeable_bidders else everyone
        elif self.exchangeable_bidders:
            row = _shuffled(rounds, count * n, generator).view(-1, n)
            auction, bidder = row // n, row % n
        else:
            auction = _shuffled(rounds * n, count, generator).view(rounds, n, count).mT.reshape(-1, n)
            bidder = everyone
        return self._values.to(generator.device)[auction, bidder][:size]

    def project(self, values: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n m"]:
        """Clip every value to the box."""
        return values.clamp(*self.bounds(values))


def _shuffled(rows: int, length: int, generator: torch.Generator) -> Int[Tensor, "{rows} {length}"]:
    """0 to length - 1 in a random order, in each of the rows."""
    keys = torch.rand(rows, length, generator=generator, device=generator.device, dtype=torch.float64)
    return keys.argsort(-1)


def _check(file: object, columns: Mapping[str, str], resample: object, split: Any, split_seed: object) -> None:
    """What the file has no part in."""
    if not isinstance(file, str) or not file:
        raise ValueError(f"file must be the path of a CSV or Parquet file, got {file!r}")
    if unknown := [role for role in columns if role not in ROLES]:
        meant = nearest(unknown[0], ROLES)
        raise ValueError(
            f"columns names the columns {', '.join(ROLES)}, got {unknown[0]!r}"
            f"{f'; did you mean columns.{meant}?' if meant else ''}"
        )
    if set(columns) != set(ROLES) or not all(isinstance(name, str) for name in columns.values()):
        raise ValueError(f"columns must have a name for each of {', '.join(ROLES)}, got {dict(columns)!r}")
    if resample not in RESAMPLES:
        raise ValueError(f"resample must be one of {', '.join(RESAMPLES)}, got {resample!r}")
    shares = list(split) if isinstance(split, Sequence) and not isinstance(split, str) else []
    if (
        len(shares) != len(PARTS)
        or not all(type(share) in (int, float) and share >= 0 for share in shares)
        or not math.isclose(sum(shares), 1, abs_tol=1e-6)
    ):
        raise ValueError(f"split must be three shares (training, held-out, audit) with the sum 1, got {split!r}")
    if isinstance(split_seed, bool) or not isinstance(split_seed, int):
        raise ValueError(f"split_seed must be a whole number, got {split_seed!r}")


def _box(
    path: Path, seen: Observations, low: Bound | None, high: Bound | None, exchangeable: bool
) -> tuple[list[list[float]], list[list[float]]]:
    """The bounds that are given, else the data's, rounded as the draws are: these must not leave the box in float64."""
    _, n, m = seen.values.shape
    over = (0, 1) if exchangeable else (0,)
    least = seen.values.amin(over).expand(n, m) if low is None else broadcast_bound("low", low, n, m)
    most = seen.values.amax(over).expand(n, m) if high is None else broadcast_bound("high", high, n, m)
    if exchangeable and not bool((least == least[0]).all() & (most == most[0]).all()):
        raise ValueError(f"exchangeable bidders must have the same low and high, got low={low!r} and high={high!r}")
    outside = (seen.values < least) | (seen.values > most)
    if bool(outside.any()):
        auction, bidder, item = (int(k) for k in outside.nonzero()[0])
        raise ValueError(
            f"{path}, line {seen.lines[auction, bidder, item]}: the value of item {seen.items[item]!r} must be between "
            f"low={least[bidder, item]:g} and high={most[bidder, item]:g}, got {seen.values[auction, bidder, item]:g}"
        )
    least, most = least.float().double(), most.float().double()
    if low is None and high is None and bool((least == most).any()):
        bidder, item = (int(k) for k in (least == most).nonzero()[0])
        whose = "" if seen.bidders is None else f" of bidder {seen.bidders[bidder]!r}"
        raise ValueError(
            f"{path}: every value{whose} for item {seen.items[item]!r} is {least[bidder, item]:g}; expected at least "
            "two different ones, or bounds low and high: misreports would have no room"
        )
    return least.tolist(), most.tolist()


def _split(path: Path, seen: Observations, split: Sequence[float], seed: int) -> dict[Stream, Float[Tensor, "_ n m"]]:
    """The auctions of each part, in float32: ranked by a hash of their labels, then cut at the shares."""
    count = len(seen.auctions)
    needed = math.ceil(FEWEST / min(share for share in split if share > 0) - 1e-6)
    if count < needed:
        raise ValueError(
            f"{path} must have at least {needed} auctions, {FEWEST} in each part of split={list(split)!r}, got {count}"
        )

    def rank(k: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{seen.auctions[k]}".encode(), digest_size=16).digest()

    ranked = seen.values[sorted(range(count), key=rank)].float()
    ends = [round(count * share) for share in itertools.accumulate(split)]
    starts = [0, *ends[:-1]]
    return {stream: ranked[start:end] for stream, start, end in zip(PARTS, starts, ends, strict=True)}
