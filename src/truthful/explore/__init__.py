"""One HTML page to look into an auction of one or two items, without a server or a network.

The auction is computed in the browser: a mechanism names a file of `rules/` and its numbers (`Mechanism.exported`).
"""

from truthful.explore.facts import Facts, facts
from truthful.explore.page import explore_page

__all__ = ["Facts", "explore_page", "facts"]
