"""Labelled allocations: examples of what people accept and of what they do not."""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from truthful.shapes import Float

Found = tuple[Tensor, Tensor, Callable[[int], str]]
"""Allocations, labels, and the place of each example in its file."""
LABEL = "label"
ROUNDING = 1e-6
"""By so much the probabilities in a file may add up to more than 1."""


@dataclass(frozen=True)
class Examples:
    """Allocations and what was said of them."""

    allocation: Float[Tensor, "k n m"]
    label: Float[Tensor, "k"]
    """1: accepted, 0: not."""

    def __getitem__(self, rows: Tensor) -> Examples:
        """Some of them."""
        return Examples(self.allocation[rows], self.label[rows])


def read_examples(path: Path, n_bidders: int, n_items: int) -> Examples:
    """Read a CSV file or a NumPy archive.

    CSV: a column `x_<i>_<j>` for each bidder and item, from 1 (the probability that bidder i gets item j), and a column
    `label`, 1 where the allocation is accepted and 0 where it is not. Archive (.npz): the arrays `allocation`, of shape
    (examples, bidders, items), and `label`.

    Raises:
        ValueError: whatever is wrong with the file, with what was expected and what came.
    """
    rows, labels, place = (_archive if path.suffix == ".npz" else _table)(path, n_bidders, n_items)
    if rows.shape != (len(labels), n_bidders, n_items):
        raise ValueError(
            f"{path}: allocation must have the shape ({len(labels)}, {n_bidders}, {n_items}), that is (examples, "
            f"bidders, items), got {tuple(rows.shape)}"
        )
    feasible = ((rows >= 0) & (rows <= 1)).all((-2, -1)) & (rows.sum(-2) <= 1 + ROUNDING).all(-1)
    for wrong, expected in (
        (~feasible, "probabilities from 0 to 1, of each item at most 1 over all bidders"),
        ((labels != 0) & (labels != 1), "a label of 1 (accepted) or 0 (not)"),
    ):
        if bool(wrong.any()):
            k = int(wrong.nonzero()[0])
            got = labels[k].item() if "label" in expected else rows[k].tolist()
            raise ValueError(f"{path}, {place(k)}: expected {expected}, got {got}")
    accepted = int(labels.sum())
    if not 0 < accepted < len(labels):
        raise ValueError(f"{path} must have examples of both labels, got {accepted} accepted ones of {len(labels)}")
    return Examples(rows.float(), labels.float())


def _table(path: Path, n_bidders: int, n_items: int) -> Found:
    names = [f"x_{i}_{j}" for i in range(1, n_bidders + 1) for j in range(1, n_items + 1)]
    rows, lines = [], []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in (*names, LABEL) if name not in (reader.fieldnames or ())]:
            raise ValueError(
                f"{path}, line 1: there is no column {missing[0]!r}; allocations of {n_items} items to {n_bidders} "
                f"bidders have the columns {names[0]} to {names[-1]} and {LABEL}"
            )
        for row in reader:
            rows.append([_number(row[name]) for name in (*names, LABEL)])
            lines.append(reader.line_num)
    cells = torch.tensor(rows, dtype=torch.float64).reshape(-1, len(names) + 1)
    return cells[:, :-1].reshape(-1, n_bidders, n_items), cells[:, -1], lambda k: f"line {lines[k]}"


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan  # which no condition accepts


def _archive(path: Path, n_bidders: int, n_items: int) -> Found:
    import numpy

    try:
        with numpy.load(path) as arrays:
            allocation, label = (torch.as_tensor(arrays[name], dtype=torch.float64) for name in ("allocation", LABEL))
    except KeyError as error:
        raise ValueError(f"{path} must have the arrays allocation and {LABEL} ({error.args[0]})") from None
    except (ValueError, TypeError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as a NumPy archive of numbers: {error}") from None
    return allocation, label.flatten(), lambda k: f"example {k}"
