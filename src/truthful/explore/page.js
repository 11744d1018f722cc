// The page when it opens.

/** Compare with what the network itself said at some profiles, when the page was written. */
function check() {
  const { profiles, allocations, payments } = auction.check;
  const n = auction.bidders, m = auction.items, count = payments.length / n;
  let off = 0;
  for (let k = 0; k < count; k++) {
    const { allocation, payment } = auction.rule(profiles.subarray(k * n * m, (k + 1) * n * m));
    allocation.forEach((chance, at) => (off = Math.max(off, Math.abs(chance - allocations[k * n * m + at]))));
    payment.forEach((price, at) => (off = Math.max(off, Math.abs(price - payments[k * n + at]))));
  }
  const right = off <= TOLERANCE * Math.max(1, ...profiles);
  element("check").textContent = right
    ? `This page and the auction itself agree at ${count} profiles: they differ by at most ${off.toExponential(0)}.`
    : `This page does not compute the auction it was written for: it is off by ${off}. Do not trust its numbers.`;
  element("check").className = right ? "quiet" : "wrong";
}

buildValues();
buildMaps();
buildDirection();
check();
offerChanged();
state.profile[0] = state.table.mostTempting(state.profile[0]);
valueChanged();
new ResizeObserver(show).observe(element("maps"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
