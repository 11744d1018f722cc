"""Observed valuations: from a file to a table of auctions, bidders and items; what is wrong is named with its line."""

from __future__ import annotations

import csv
import importlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from truthful.errors import nearest
from truthful.shapes import Float, Int

ROLES = ("auction", "bidder", "item", "value")
DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Observations:
    """The valuations of whole auctions. Labels are in natural order (2 before 10), whatever the order in the file."""

    auctions: list[str]
    bidders: list[str] | None
    """None where each auction may have bidders of its own."""
    items: list[str]
    values: Float[Tensor, "a n m"]
    """In float64."""
    lines: Int[Tensor, "a n m"]
    """Where each value stands."""


@dataclass(frozen=True)
class _Entry:
    auction: str
    bidder: str
    item: str
    value: float
    line: int


def read_observations(path: Path, columns: Mapping[str, str], exchangeable: bool) -> Observations:
    """Read a CSV or Parquet file, in long form or in wide form.

    Long form has a row for each value, with the columns auction, bidder, item and value; other columns are ignored.
    Wide form has no column item, and a row for each auction and bidder: every column but auction and bidder is an item.

    Args:
        path: the file; Parquet if its name ends in .parquet. CSV is UTF-8, separated by commas, semicolons or tabs.
        columns: the name of the column for each of `ROLES`.
        exchangeable: bidders need not have the same labels in all auctions, only be as many.

    Raises:
        ValueError: whatever is wrong with the file, with the line and with what was expected and what came.
    """
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _csv_rows(path)
    header = [str(name).strip() for name in next(rows, (1, []))[1]]
    if not any(header):
        raise ValueError(f"{path} is empty: expected a line with the names of the columns")
    entries = list(_entries(path, header, rows, columns))
    if not entries:
        raise ValueError(f"{path} has no rows below the names of its columns")
    return _arrange(path, entries, exchangeable)


def _csv_rows(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """Line number and cells of each line that is not blank, the header's first."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(DELIMITERS, key=first.count))
            yield from ((reader.line_num, row) for row in reader if any(cell.strip() for cell in row))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8, or a file that is called .parquet ({error})") from None
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """The same of a Parquet file, whose first row counts as line 2."""
    names, columns = _parquet(path)
    yield 1, names
    yield from enumerate((list(row) for row in zip(*columns, strict=True)), 2)


def _parquet(path: Path) -> tuple[list[str], list[list[Any]]]:
    """Names and cells of the columns, by whichever library is installed."""
    for library in ("pyarrow.parquet", "pandas"):
        try:
            reader = importlib.import_module(library)
        except ImportError:
            continue
        try:
            if library == "pandas":
                frame = reader.read_parquet(path)
                return [str(name) for name in frame.columns], [frame[name].tolist() for name in frame.columns]
            table = reader.read_table(path)
            return table.column_names, [column.to_pylist() for column in table.columns]
        except Exception as error:  # each library has its own for a damaged file
            raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
    raise ValueError(f"{path} is Parquet, which needs pyarrow or pandas; install one of them, or save it as CSV")


def _entries(
    path: Path, header: list[str], rows: Iterator[tuple[int, list[Any]]], columns: Mapping[str, str]
) -> Iterator[_Entry]:
    """Every value of a table in either form."""
    at = {name: k for k, name in enumerate(header)}
    if len(at) < len(header):
        twice = next(name for name, times in Counter(header).items() if times > 1)
        raise ValueError(f"{path}, line 1: two columns are called {twice!r}")
    long = columns["item"] in at
    for role in ROLES if long else ROLES[:2]:
        if columns[role] not in at:
            meant = nearest(columns[role], at)
            raise ValueError(
                f"{path}, line 1: there is no column {columns[role]!r}, the columns are {_listed(header)}"
                f"{f'; did you mean setting.columns.{role}={meant}?' if meant else ''}"
            )
    auction, bidder = (at[columns[role]] for role in ROLES[:2])
    items = [name for name in header if name not in (columns["auction"], columns["bidder"])]
    if not long and ("" in items or not items):
        raise ValueError(
            f"{path}, line 1: expected the columns {_listed(columns.values())}, or, without {columns['item']!r}, a "
            f"named column for each item, got {_listed(header)}"
        )
    for line, cells in rows:
        if len(cells) != len(header):
            raise ValueError(f"{path}, line {line}: expected {len(header)} cells, as in line 1, got {len(cells)}")
        who = _label(path, line, columns["auction"], cells[auction]), _label(path, line, "bidder", cells[bidder])
        if long:
            item = _label(path, line, columns["item"], cells[at[columns["item"]]])
            yield _Entry(*who, item, _value(path, line, columns["value"], cells[at[columns["value"]]]), line)
        else:
            why = f"(an item, as there is no column {columns['item']!r})"
            for item in items:
                yield _Entry(*who, item, _value(path, line, f"{item!r} {why}", cells[at[item]]), line)


def _label(path: Path, line: int, column: str, cell: Any) -> str:
    label = "" if cell is None else str(cell).strip()
    if not label:
        raise ValueError(f"{path}, line {line}: {column} must not be empty")
    return label


def _value(path: Path, line: int, column: str, cell: Any) -> float:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value < torch.finfo(torch.float32).max:  # NaN is not, either
        raise ValueError(
            f"{path}, line {line}: {column} must be a finite number of at least 0, such as 1.25, got {cell!r}"
        )
    return value


def _arrange(path: Path, entries: list[_Entry], exchangeable: bool) -> Observations:
    """Whole auctions only: all with the bidders, and the bidders with the items, that most of them have."""
    table: dict[str, dict[str, dict[str, _Entry]]] = {}
    for entry in entries:
        row = table.setdefault(entry.auction, {}).setdefault(entry.bidder, {})
        if entry.item in row:
            raise ValueError(
                f"{path}, line {entry.line}: auction {entry.auction!r}, bidder {entry.bidder!r}, item {entry.item!r} "
                f"is there already, in line {row[entry.item].line}"
            )
        row[entry.item] = entry
    items = _usual(frozenset(row) for rows in table.values() for row in rows.values())
    bidders = _usual(frozenset(rows) for rows in table.values())
    count = _usual(len(rows) for rows in table.values())
    for auction, rows in table.items():
        first = min(entry.line for row in rows.values() for entry in row.values())
        place = f"{path}, line {first}: auction {auction!r}"
        if exchangeable and len(rows) != count:
            raise ValueError(f"{place} has {len(rows)} bidders, most have {count}; all must have as many")
        if not exchangeable and rows.keys() != bidders:
            raise ValueError(f"{place} {_difference('bidder', rows, bidders)}; all must have the same bidders")
        for bidder, row in rows.items():
            if row.keys() != items:
                line = min(entry.line for entry in row.values())
                place = f"{path}, line {line}: auction {auction!r}, bidder {bidder!r}"
                raise ValueError(f"{place} {_difference('item', row, items)}; all must have the same items")
    auctions, ordered_items = sorted(table, key=_natural), sorted(items, key=_natural)
    cells = [
        [[table[auction][bidder][item] for item in ordered_items] for bidder in sorted(table[auction], key=_natural)]
        for auction in auctions
    ]
    return Observations(
        auctions,
        None if exchangeable else sorted(bidders, key=_natural),
        ordered_items,
        torch.tensor([[[entry.value for entry in row] for row in rows] for rows in cells], dtype=torch.float64),
        torch.tensor([[[entry.line for entry in row] for row in rows] for rows in cells]),
    )


def _usual(found: Iterable[Any]) -> Any:
    """What is found most often."""
    return Counter(found).most_common(1)[0][0]


def _difference(kind: str, got: Iterable[str], usual: Iterable[str]) -> str:
    sides = (("lacks", set(usual) - set(got)), ("has", set(got) - set(usual)))
    told = [f"{verb} the {kind} {_listed(sorted(names, key=_natural))}" for verb, names in sides if names]
    return " and ".join(told) + ", unlike most"


def _natural(label: str) -> tuple[list[str | int], str]:
    """Sorts numbers within labels as numbers."""
    return [int(part) if k % 2 else part for k, part in enumerate(re.split(r"(\d+)", label))], label


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
