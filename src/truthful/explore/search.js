// What a bidder is offered while the others' bids stay, and the best lie that is found against it.

// A search: the cells of its grid in each direction, and from how many of its places it is refined, beside the truth.
const COARSE = { cells: 16, starts: 1 };
const FINE = { cells: 96, starts: 4 };
const BLOCKS = 4; // these places lie in different ones of so many by so many blocks of the plane
const FINEST = 1e-6; // last step of the refinement, as a share of the range of values
const ROUNDS = 100; // of a refinement, at most
const NEGLIGIBLE = 1e-9; // gains below this share of the largest value are rounding

/** Bidder `bidder`'s outcomes over his reports, all others bidding their part of `profile`. */
class Offer {
  constructor(auction, bidder, profile) {
    this.rule = auction.rule;
    this.bidder = bidder;
    this.items = auction.items;
    this.support = auction.supports[bidder];
    this.window = auction.windows[bidder];
    this.negligible = NEGLIGIBLE * Math.max(...this.window.high);
    this.bids = Float64Array.from(profile.flatMap((values) => values.slice(0, auction.items)));
  }

  /** [chance of item 1, chance of item 2, payment]; with one item the second is 0. */
  outcome(report) {
    const first = this.bidder * this.items;
    for (let j = 0; j < this.items; j++) this.bids[first + j] = report[j];
    const { allocation, payment } = this.rule(this.bids);
    return [allocation[first], this.items > 1 ? allocation[first + 1] : 0, payment[this.bidder]];
  }
}

function utility(values, [one, two, payment]) {
  return values[0] * one + values[1] * two - payment;
}

/** Outcomes at the nodes of a grid over the window, and what the best of all these reports gains at each of them. */
class Table {
  constructor(offer, search) {
    const { low, high } = offer.window;
    this.offer = offer;
    this.search = search;
    this.axes = low.map((a, item) => nodes(a, high[item], high[item] > a ? search.cells : 0));
    this.layers = Array.from({ length: 4 }, () => new Float64Array(this.axes[0].length * this.axes[1].length));
    this.reports = null; // of each report in the support: its two values and its outcome, five numbers in a row
  }

  point(node) {
    const columns = this.axes[0].length;
    return [this.axes[0][node % columns], this.axes[1][Math.floor(node / columns)]];
  }

  /** Compute everything; control comes back every few nodes. */
  *fill() {
    const { offer, layers } = this;
    const corners = offer.support.flat();
    const reports = corners.flatMap((corner) => [...corner, ...offer.outcome(corner)]);
    for (let node = 0; node < layers[0].length; node++) {
      const point = this.point(node);
      const outcome = offer.outcome(point);
      outcome.forEach((number, layer) => (layers[layer][node] = number));
      if (contains(offer.support, point)) reports.push(...point, ...outcome);
      if (node % 32 === 31) yield;
    }
    this.reports = Float64Array.from(reports);
    for (let node = 0; node < layers[0].length; node++) {
      const truth = layers.slice(0, 3).map((layer) => layer[node]);
      const gain = this.most(this.point(node)) - utility(this.point(node), truth);
      layers[3][node] = gain > offer.negligible ? gain : 0;
      if (node % 32 === 31) yield;
    }
  }

  /** The largest utility at `values` that any of the reports has. */
  most([one, two]) {
    const { reports } = this;
    let most = -Infinity;
    for (let k = 0; k < reports.length; k += 5) {
      const utility = one * reports[k + 2] + two * reports[k + 3] - reports[k + 4];
      if (utility > most) most = utility;
    }
    return most;
  }

  /** The values with the largest gain; `otherwise` if there is none. */
  mostTempting(otherwise) {
    let best = otherwise, most = 0;
    this.layers[3].forEach((gain, node) => {
      if (gain > most && contains(this.offer.support, this.point(node))) [best, most] = [this.point(node), gain];
    });
    return project(this.offer.support, best);
  }

  /** The best report of each block at `values`, of the best few blocks. */
  starts(values) {
    const { low, high } = this.offer.window;
    const best = new Map();
    for (let k = 0; k < this.reports.length; k += 5) {
      const report = [this.reports[k], this.reports[k + 1]];
      const share = (item) => (report[item] - low[item]) / (high[item] - low[item] || 1);
      const block = `${Math.floor(share(0) * BLOCKS)} ${Math.floor(share(1) * BLOCKS)}`;
      const gained = utility(values, this.reports.subarray(k + 2, k + 5));
      if (!(best.get(block)?.gained >= gained)) best.set(block, { report, gained });
    }
    const ranked = [...best.values()].sort((a, b) => b.gained - a.gained);
    return ranked.slice(0, this.search.starts).map(({ report }) => report);
  }
}

function nodes(low, high, cells) {
  return Float64Array.from({ length: cells + 1 }, (_, k) => (k === cells ? high : low + ((high - low) * k) / cells));
}

/** The best lie found at `values`: compass searches from the truth and the best places of the table; or the truth. */
function bestLie(table, values) {
  const { offer } = table;
  const truth = offer.outcome(values);
  const honest = utility(values, truth);
  const score = (report) => utility(values, offer.outcome(report));
  let best = { report: values, most: honest + offer.negligible };
  for (const start of [values, ...table.starts(values)]) {
    const found = climb(score, start, offer, 1 / table.search.cells);
    if (found.most > best.most) best = found;
  }
  const outcome = offer.outcome(best.report);
  return { truth, report: best.report, outcome, gain: utility(values, outcome) - honest };
}

/** Compass search: go to the better ones of eight neighbours; if there is none, halve the step. */
function climb(score, start, { support, window: { low, high } }, step) {
  let report = start, most = score(start);
  for (let round = 0; round < ROUNDS && step > FINEST; round++) {
    let moved = false;
    for (let k = 0; k < 8; k++) {
      const turn = (k * Math.PI) / 4;
      const place = project(support, [
        report[0] + Math.cos(turn) * step * (high[0] - low[0]),
        report[1] + Math.sin(turn) * step * (high[1] - low[1]),
      ]);
      const here = score(place);
      if (here > most) [report, most, moved] = [place, here, true];
    }
    if (!moved) step /= 2;
  }
  return { report, most };
}
