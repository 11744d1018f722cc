"""Write examples/bids.csv: 400 made-up auctions of two advertising slots between two bidders, the same ones every time.

    python examples/make_bids.py

A day's demand moves all values of an auction together, so they are not independent. `incumbent` cares about the morning
slot, `entrant` about both alike. Values are in euros a thousand views, rounded to cents.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path

AUCTIONS = 400
FILE = Path(__file__).parent / "bids.csv"
TYPICAL = {"incumbent": {"morning": 4.0, "evening": 2.0}, "entrant": {"morning": 2.5, "evening": 2.5}}


def main() -> None:
    """Draw and write."""
    draw = random.Random(0).random  # its sequence is the same in every version of Python
    with FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["auction", "bidder", "item", "value"])
        for auction in range(1, AUCTIONS + 1):
            demand = 0.5 + draw()
            for bidder, slots in TYPICAL.items():
                for slot, typical in slots.items():
                    value = typical * demand * (draw() + draw())  # between 0 and twice what is typical on such a day
                    writer.writerow([auction, bidder, slot, f"{value:.2f}"])


if __name__ == "__main__":
    main()
