// Where a bidder's values may lie: convex polygons, counter-clockwise, points and segments among them.
// A point is [value of item 1, value of item 2]; of one item the second is 0.

/** The point of the support that is nearest to `point`. */
function project(support, point) {
  if (support.some((polygon) => surrounds(polygon, point))) return point;
  let nearest = null, least = Infinity;
  for (const polygon of support) {
    for (let k = 0; k < polygon.length; k++) {
      const place = nearestOnSegment(polygon[k], polygon[(k + 1) % polygon.length], point);
      const away = Math.hypot(place[0] - point[0], place[1] - point[1]);
      if (away < least) [nearest, least] = [place, away];
    }
  }
  return nearest;
}

/** Whether a point lies in the support, up to rounding. */
function contains(support, point) {
  const [x, y] = project(support, point);
  return Math.hypot(x - point[0], y - point[1]) <= 1e-9 * (1 + Math.hypot(...point));
}

/** Whether the support has room in the plane; if not, it is points and segments. */
function hasArea(support) {
  return support.some((polygon) => polygon.length > 2);
}

/** Whether the support is points only, between which pictures go on all the same. */
function isScattered(support) {
  return support.every((polygon) => polygon.length === 1);
}

function surrounds(polygon, [x, y]) {
  return polygon.length > 2 && polygon.every(([a, b], k) => {
    const [c, d] = polygon[(k + 1) % polygon.length];
    return (c - a) * (y - b) - (d - b) * (x - a) >= 0;
  });
}

function nearestOnSegment([a, b], [c, d], [x, y]) {
  const length = (c - a) ** 2 + (d - b) ** 2;
  const share = length && Math.min(1, Math.max(0, ((x - a) * (c - a) + (y - b) * (d - b)) / length));
  return share === 1 ? [c, d] : [a + share * (c - a), b + share * (d - b)];
}
