// What is chosen and what is found for it; a change recomputes what depends on it.

const REST = 150; // milliseconds without a change before the fine table is computed
const SLICE = 12; // milliseconds of computing after which the page may answer
const SAMPLES = 240; // reports along the line
const TOLERANCE = 1e-5; // of the check against the network, in units of the largest value or of 1

const element = (id) => document.getElementById(id);
const revive = (_, entry) => (entry?.float32 ? decode(entry.float32) : entry);
const auction = JSON.parse(element("auction").textContent, revive);
auction.rule = rule(auction.numbers, auction.bidders, auction.items);

const state = {
  bidder: 0,
  profile: auction.windows.map(({ low, high }, bidder) => // the middle
    project(auction.supports[bidder], low.map((a, item) => (a + high[item]) / 2))),
  direction: "lie", // of the line: "0" or "1" for an item, "lie", "angle"
  angle: 45, // degrees, in the window as a square
  close: true, // whether the line is shown close to the truthful utility, so that small gains can be seen
  table: null,
  found: null,
};

/** The numbers of a base64 string of little-endian single precision, in double precision. */
function decode(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return Float64Array.from(new Float32Array(bytes.buffer));
}

/** The others' values, or who is looked at, have changed: a coarse search now, a fine one when it is quiet. */
function offerChanged() {
  state.table = new Table(new Offer(auction, state.bidder, state.profile), COARSE);
  for (const _ of state.table.fill());
  refine();
}

let refinement = 0;
async function refine() {
  const turn = ++refinement;
  const pause = (time) => new Promise((go) => setTimeout(go, time));
  const table = new Table(state.table.offer, FINE);
  await pause(REST);
  let since = performance.now();
  for (const _ of table.fill()) {
    if (turn !== refinement) return;
    if (performance.now() - since < SLICE) continue;
    await pause(0);
    since = performance.now();
  }
  if (turn !== refinement) return;
  state.table = table;
  valueChanged();
}

/** The bidder's own values, or the table, have changed. */
function valueChanged() {
  state.found = bestLie(state.table, state.profile[state.bidder]);
  show();
}

let waiting = 0, stale = false;
/** Show a change with the next picture on the screen; `others` tells whether the table has to be computed again. */
function soon(others) {
  stale ||= others;
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => {
    if (stale) offerChanged();
    stale = false;
    valueChanged();
  });
}

function setValues(bidder, values) {
  state.profile[bidder] = project(auction.supports[bidder], values);
  soon(bidder !== state.bidder);
}
