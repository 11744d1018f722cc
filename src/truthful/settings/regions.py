"""Where a bidder with two values takes which entry of a menu, exactly."""

from __future__ import annotations

from truthful.settings.optimum import Menu

Point = tuple[float, float]
Polygon = list[Point]
"""Corners of a convex polygon in the plane of the two values, counter-clockwise; empty where nothing is left of it."""


def box_corners(low: Point, high: Point) -> Polygon:
    """The corners of [low_1, high_1] x [low_2, high_2]."""
    return [low, (high[0], low[1]), high, (low[0], high[1])]


def menu_regions(menu: Menu, support: Polygon) -> list[Polygon]:
    """The part of `support` where each entry of a menu for two items is taken, and last where the free nothing is.

    Utilities of entries are affine in the values, so regions are convex polygons: `support` cut by one line for each
    other entry. They overlap in edges only; of two equal entries the first has the region.
    """
    entries = [*menu, ((0.0, 0.0), 0.0)]
    regions = []
    for k, ((one, two), price) in enumerate(entries):
        region = support
        for other, (chance, charge) in enumerate(entries):
            if other == k or not region:
                continue
            advantage = (one - chance[0], two - chance[1], charge - price)
            region = [] if advantage == (0, 0, 0) and other < k else _cut(region, advantage)
        regions.append(region)
    return regions


def area(polygon: Polygon) -> float:
    """The area of a polygon, by the shoelace formula."""
    if not polygon:
        return 0.0
    left, bottom = polygon[0]  # relative to a corner, so that small polygons far from the origin keep their digits
    corners = [(x - left, y - bottom) for x, y in polygon]
    return sum(a * d - b * c for (a, b), (c, d) in _edges(corners)) / 2


def inner_edges(regions: list[Polygon], support: Polygon) -> list[tuple[Point, Point]]:
    """The edges between regions, without those that are part of the support's own boundary; each is there twice."""
    edges = [edge for region in regions for edge in _edges(region)]
    return [edge for edge in edges if not any(_lies_on(side, edge) for side in _edges(support))]


def _cut(polygon: Polygon, line: tuple[float, float, float]) -> Polygon:
    """The part of a convex polygon where a x + b y + c >= 0, for a line (a, b, c); empty where that has no area."""
    a, b, c = line
    heights = [a * x + b * y + c for x, y in polygon]
    if min(heights) >= 0:
        return polygon
    if max(heights) <= 0:
        return []
    kept: Polygon = []
    for k, (start, end) in enumerate(_edges(polygon)):
        here, there = heights[k], heights[(k + 1) % len(polygon)]
        if here >= 0:
            kept.append(start)
        if here * there < 0:
            share = here / (here - there)
            kept.append((start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])))
    return kept


def _edges(polygon: Polygon) -> list[tuple[Point, Point]]:
    return list(zip(polygon, polygon[1:] + polygon[:1], strict=True))


def _lies_on(side: tuple[Point, Point], edge: tuple[Point, Point]) -> bool:
    (a, b), (c, d) = side
    length = (c - a) ** 2 + (d - b) ** 2
    return all(abs((c - a) * (y - b) - (d - b) * (x - a)) <= 1e-9 * length for x, y in edge)
