"""Published results to stand beside ours.

Table 1 of Okada (2025), "Accelerating Automated Auction Design using Sufficiency of Local Incentive Compatibility",
with the digits of its released result files: 10,000 profiles, regret the mean over bidders, found by 1000 starts x
1000 (section 4.1) or 2000 (section 4.3) steps, so it is a lower bound, too. Seconds are of the paper's machine.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedRow:
    """One row of the table."""

    method: str
    revenue: float
    regret: float
    """Mean over bidders."""
    seconds: int


TABLE_1 = {
    ("a", "standard"): PublishedRow("RegretNet-Standard", 0.8874, 0.00040, 10594),
    ("a", "local"): PublishedRow("RegretNet-Local", 0.8823, 0.00077, 2123),
    ("b", "standard"): PublishedRow("RegretNet-Standard", 2.3106, 0.00152, 12310),
    ("b", "local"): PublishedRow("RegretNet-Local", 2.2577, 0.00165, 2460),
    ("c", "standard"): PublishedRow("RegretNet-Standard", 5.6353, 0.00227, 23436),
    ("c", "local"): PublishedRow("RegretNet-Local", 5.6751, 0.00613, 4590),
    ("d", "standard"): PublishedRow("RegretNet-Standard", 9.8969, 0.0073, 6765),
    ("d", "local"): PublishedRow("RegretNet-Local", 9.8267, 0.0077, 1876),
    ("e", "standard"): PublishedRow("RegretNet-Standard", 0.7175, 0.00042, 10635),
    ("e", "local"): PublishedRow("RegretNet-Local", 0.7205, 0.00097, 2057),
}


def published_row(setting: str, regret_mode: str) -> PublishedRow | None:
    """The row to compare a run with; None where the paper has none.

    `local` and `local_persistent` both meet RegretNet-Local: the first is what is printed, the second what is released.
    """
    return TABLE_1.get((setting, "local" if regret_mode == "local_persistent" else regret_mode))
