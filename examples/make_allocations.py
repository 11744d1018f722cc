"""Write examples/allocations.csv: 600 labelled allocations of two items to two bidders, the same ones every time.

    python examples/make_allocations.py

Acceptable (label 1) is what gives each bidder at least a quarter of all that is sold. Allocations range from each item
going to one bidder, or to none, to even shares.
"""

from __future__ import annotations

import csv
import math
import random
from pathlib import Path

EXAMPLES = 600
LEAST = 0.25
FILE = Path(__file__).parent / "allocations.csv"


def shares(draw: random.Random) -> list[float]:
    """What the bidders get of an item, in thousandths: what is left of 1 is not sold."""
    spread = math.exp(4 * draw.random() - 3)
    amounts = [draw.random() ** (1 / spread) for _ in range(3)]
    return [math.floor(1000 * amount / sum(amounts)) / 1000 for amount in amounts[:2]]


def main() -> None:
    """Draw and write."""
    draw = random.Random(0)
    with FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["x_1_1", "x_1_2", "x_2_1", "x_2_2", "label"])
        for _ in range(EXAMPLES):
            (first, second), (third, fourth) = shares(draw), shares(draw)
            each = (first + third, second + fourth)
            writer.writerow([first, third, second, fourth, int(min(each) >= LEAST * sum(each))])


if __name__ == "__main__":
    main()
