"""The page, put together from the files beside this one."""

from __future__ import annotations

import base64
import copy
import json
import re
import struct
from html import escape
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

from truthful.explore.facts import Facts
from truthful.mechanisms import Mechanism
from truthful.plots import highest_shown
from truthful.settings import Setting
from truthful.settings.regions import Point, inner_edges, menu_regions

SOURCES = files(__package__)
SCRIPTS = ("support.js", "search.js", "draw.js", "state.js", "controls.js", "pictures.js", "page.js")
MOST_ITEMS = 2
CHECKED = 100
"""Profiles at which the page compares its own outcomes with those of the mechanism, whenever it is opened."""


def explore_page(mechanism: Mechanism, setting: Setting, facts: Facts) -> str:
    """The whole page as HTML. Raises ValueError for an auction that it cannot show."""
    if setting.n_items > MOST_ITEMS:
        raise ValueError(
            f"the page shows auctions of one or two items, over the plane of a bidder's values; got {setting.n_items}"
        )
    exported = mechanism.exported()
    if exported is None:
        rules = sorted(path.name.removesuffix(".js") for path in (SOURCES / "rules").iterdir())
        raise ValueError(
            f"{type(mechanism).__name__} has no rule in JavaScript to compute it in a page; {', '.join(rules)} have"
        )
    rule, numbers = exported
    texts = {
        "title": escape(facts.title),
        "setting": escape(facts.setting),
        "numbers": _definitions(facts.numbers),
        "notes": _definitions(facts.notes),
        "auction": _json({**_describe(setting), "numbers": numbers, "check": _check(mechanism, setting)}),
        "style": _read("style.css"),
        "script": "\n".join(_read(name) for name in (f"rules/{rule}.js", *SCRIPTS)),
    }
    return re.sub(r"{{(\w+)}}", lambda name: texts[name[1]], _read("page.html"))


def _describe(setting: Setting) -> dict[str, Any]:
    """Sizes, supports, the parts of them that are shown, and the edges of the optimal auction's regions."""
    supports = [setting.polygons(bidder) for bidder in range(setting.n_bidders)]
    ends = zip(setting.low.tolist(), highest_shown(setting).tolist(), strict=True)
    return {
        "bidders": setting.n_bidders,
        "items": setting.n_items,
        "supports": supports,
        "windows": [{"low": _in_the_plane(low), "high": _in_the_plane(high)} for low, high in ends],
        "optimum": _optimal_edges(setting),
    }


def _in_the_plane(values: list[float]) -> Point:
    return values[0], values[1] if len(values) == MOST_ITEMS else 0.0


def _optimal_edges(setting: Setting) -> list[tuple[Point, Point]]:
    optimum = setting.optimum
    if optimum is None or optimum.menu is None or setting.n_items != MOST_ITEMS:
        return []
    supports = setting.polygons(0)
    return [edge for support in supports for edge in inner_edges(menu_regions(optimum.menu, support), support)]


@torch.no_grad()
def _check(mechanism: Mechanism, setting: Setting) -> dict[str, Tensor]:
    profiles = setting.sample(CHECKED, torch.Generator().manual_seed(0))
    outcome = copy.deepcopy(mechanism).double()(profiles.double())
    return {"profiles": profiles, "allocations": outcome.allocation, "payments": outcome.payment}


def _definitions(texts: dict[str, str]) -> str:
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in texts.items())


def _json(content: dict[str, Any]) -> str:
    """JSON for a script element: tensors as base64 of single precision, nothing that could end the element."""
    return json.dumps(content, default=_encode, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _encode(tensor: Tensor) -> dict[str, str]:
    numbers = tensor.detach().flatten().tolist()
    return {"float32": base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()}


def _read(name: str) -> str:
    return (SOURCES / name).read_text(encoding="utf-8")
