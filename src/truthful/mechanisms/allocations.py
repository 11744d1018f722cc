"""All deterministic allocations of m items to n bidders, and those that a symmetric auction must treat alike."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from truthful.settings.base import Setting
from truthful.shapes import Float

LIMIT = 4096
"""The most allocations, or classes of them, that an auction may choose among by trying all."""

Owners = tuple[int, ...]
"""Who gets each item: 1, ..., n, or 0 for nobody."""


def all_owners(n_bidders: int, n_items: int, demand: str) -> list[Owners]:
    """Every feasible allocation. Raises ValueError if there are more than `LIMIT`."""
    if demand == "additive":
        count = (n_bidders + 1) ** n_items
    else:
        sizes = range(min(n_bidders, n_items) + 1)
        count = sum(math.comb(n_bidders, k) * math.perm(n_items, k) for k in sizes)
    _check(count, "allocations", n_bidders, n_items, demand)
    everything = itertools.product(range(n_bidders + 1), repeat=n_items)
    return [owners for owners in everything if demand == "additive" or _one_each(owners)]


def sorted_owners(n_bidders: int, n_items: int, demand: str) -> list[Owners]:
    """One feasible allocation for all those that give each bidder as many items, in the order of the items sold.

    Raises ValueError if there are more than `LIMIT`.
    """
    if demand == "additive":
        count = math.comb(n_bidders + n_items, n_items)
    else:
        count = sum(math.comb(n_bidders, k) for k in range(min(n_bidders, n_items) + 1))
    _check(count, "numbers of items that bidders get", n_bidders, n_items, demand)
    everything = itertools.combinations_with_replacement(range(n_bidders + 1), n_items)
    feasible = [owners for owners in everything if demand == "additive" or _one_each(owners)]
    return sorted(feasible, key=lambda owners: n_items - owners.count(0))


def as_allocations(owners: list[Owners], n_bidders: int) -> Float[Tensor, "k n m"]:
    """Zeros and ones, in float64."""
    table = torch.tensor(owners).unsqueeze(1)
    return (table == torch.arange(1, n_bidders + 1)[:, None]).double()


def orbit(owners: Owners, setting: Setting) -> str:
    """The name that an allocation shares with all it becomes when exchangeable bidders, or items, are permuted.

    Both exchangeable: how many items each winner gets, largest first (`2+1`, `0` for nothing sold). Items only: how
    many each bidder gets (`1,0,2`). Else the owner of each item, `-` for nobody (`12-`); exchangeable bidders are
    numbered as they appear.
    """
    n = setting.n_bidders
    sizes = [owners.count(bidder) for bidder in range(1, n + 1)]
    if setting.exchangeable_items:
        if setting.exchangeable_bidders:
            return "+".join(str(size) for size in sorted(sizes, reverse=True) if size) or "0"
        return ",".join(map(str, sizes))
    names = {0: "-"}
    for owner in owners:
        names.setdefault(owner, str(len(names) if setting.exchangeable_bidders else owner))
    return ("" if n < 10 else ".").join(names[owner] for owner in owners)


def bundle(bidder: int, owners: Owners, setting: Setting) -> str:
    """The name of what a bidder gets that he shares with all it becomes under the same permutations.

    The number of items, where those are exchangeable, else the items (`1.3`), after the bidder (`2:`) unless those
    are exchangeable, too.
    """
    items = [str(item + 1) for item, owner in enumerate(owners) if owner == bidder]
    held = str(len(items)) if setting.exchangeable_items else ".".join(items)
    return held if setting.exchangeable_bidders else f"{bidder}:{held}"


def _check(count: int, what: str, n_bidders: int, n_items: int, demand: str) -> None:
    if count > LIMIT:
        raise ValueError(
            f"this auction tries all {what}, of which there may be {LIMIT}; {n_bidders} bidders x {n_items} items "
            f"with {demand} demand have {count}"
        )


def _one_each(owners: Owners) -> bool:
    winners = [owner for owner in owners if owner]
    return len(winners) == len(set(winners))
