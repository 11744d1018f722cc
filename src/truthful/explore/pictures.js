// What is seen: maps, the lie in numbers, utility along a line.

/** A number with four digits behind the point, fewer where values are large, and `more` than usual. */
function format(number, more = 0) {
  const largest = Math.max(...auction.windows.flatMap(({ high }) => high));
  const digits = Math.min(12, Math.max(0, 4 - Math.max(0, Math.ceil(Math.log10(largest / 10)))) + more);
  return number.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "\u2212");
}

function formatPoint(point) {
  const shown = point.slice(0, auction.items).map((value) => format(value, -1));
  return auction.items === 1 ? shown[0] : `(${shown.join(", ")})`;
}

const maps = []; // of each layer of a table that is shown: its canvas and the number at the right end of its ramp

function buildMaps() {
  const names = ["chance of item 1", "chance of item 2", "payment", "gain from lying"];
  names.forEach((name, layer) => {
    if (layer === 1 && auction.items === 1) return;
    const rampName = ["chance", "chance", "payment", "gain"][layer];
    const canvas = make("canvas", { tabIndex: 0, role: "img" });
    const most = make("span");
    const strip = make("span", { className: "ramp" });
    strip.style.background = `linear-gradient(90deg, var(--${rampName}-0), var(--${rampName}-1), var(--${rampName}-2))`;
    const caption = make("figcaption", {}, make("b", { textContent: name }));
    if (auction.items === 2) caption.append("0", strip, most);
    element("maps").append(make("figure", {}, caption, canvas));
    const map = { name, layer, rampName, canvas, most, plot: null };
    maps.push(map);
    const drag = (event) => setValues(state.bidder, map.plot.at(event)); // projected: of one item onto its line
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      drag(event);
    };
    canvas.onpointermove = (event) => canvas.hasPointerCapture(event.pointerId) && drag(event);
    canvas.onkeydown = (event) => {
      const ways = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowDown: [1, -1], ArrowUp: [1, 1] };
      const [item, way] = ways[event.key] ?? [];
      if (item < auction.items) nudge(event, state.bidder, item, way);
    };
  });
}

/** Whether a curve goes through a report. */
function isShown(report) {
  const support = auction.supports[state.bidder];
  return isScattered(support) || contains(support, report);
}

function showMap(map, values, line) {
  const { low, high } = auction.windows[state.bidder];
  const { truth, report, outcome, gain } = state.found;
  const layer = state.table.layers[map.layer];
  const most = map.layer < 2 ? 1 : Math.max(...layer) || 1;
  map.most.textContent = map.layer < 2 ? "1" : Math.max(...layer) && format(most, map.layer === 3 ? 1 : -1);
  map.canvas.ariaLabel = `${map.name} over the values of bidder ${state.bidder + 1}; arrow keys move the point`;
  const across = [low[0], high[0]];
  if (auction.items === 1) {
    map.plot = new Plot(map.canvas, across, [0, 1.05 * most], ["value of item 1", map.name]);
    const curve = Array.from(state.table.axes[0], (value, node) => [value, isShown([value, 0]) ? layer[node] : null]);
    map.plot.lines(curve, { stroke: colour("curve") });
    const heights = map.layer === 3 ? [gain, null] : [truth[map.layer], outcome[map.layer]];
    if (gain > 0 && heights[1] !== null) map.plot.mark([report[0], heights[1]], "diamond");
    map.plot.mark([values[0], heights[0]], "disc");
    return;
  }
  map.plot = new Plot(map.canvas, across, [low[1], high[1]], ["value of item 1", "value of item 2"]);
  drawMap(map.plot, state.table, map.layer, most, map.rampName, auction.optimum);
  map.plot.lines(line, { stroke: colour("mark"), halo: colour("halo"), width: 1, dash: [4, 4] });
  if (gain > 0) {
    map.plot.lines([values, report], { stroke: colour("mark"), halo: colour("halo") });
    map.plot.mark(report, "diamond");
  }
  map.plot.mark(values, "disc");
}

function showLie(values) {
  const { truth, report, outcome, gain } = state.found;
  const who = `Bidder ${state.bidder + 1}, whose true values are ${formatPoint(values)}`;
  const [head, text] = gain > 0
    ? [`Lying gains ${format(gain, 1)}`, `${who}, gains at least that much: a search finds a lower bound.`]
    : ["No lie found that pays", `${who}, gains nothing by the lies that were tried, which proves nothing.`];
  element("gain").replaceChildren(head, make("small", { textContent: text }));
  const rows = [
    ["reports", formatPoint(values), gain > 0 ? formatPoint(report) : "\u2013"],
    ...truth.slice(0, auction.items).map((chance, item) =>
      [`chance of item ${item + 1}`, chance.toFixed(4), outcome[item].toFixed(4)]),
    ["pays", format(truth[2]), format(outcome[2])],
    ["utility", format(utility(values, truth), 1), format(utility(values, outcome), 1)],
  ];
  const cell = (textContent) => make("td", { textContent });
  document.querySelector("#lie tbody").replaceChildren(...rows.map(([name, ...cells]) =>
    make("tr", {}, make("th", { scope: "row", textContent: name }), ...cells.map(cell))));
  const { starts } = state.table.search;
  const places = state.table.axes.slice(0, auction.items).map((axis) => axis.length).join(" \u00d7 ");
  element("search").textContent =
    `Search: ${places} reports and the corners of the support; then from the ${starts > 1 ? `best ${starts} places` : "best"} and the truth `
    + "a compass search on the auction itself.";
}

/** Reports along the line through the truth, from edge to edge, and the item that is its axis in a picture. */
function reportsAlong(values) {
  const { low, high } = auction.windows[state.bidder];
  const range = low.map((a, j) => high[j] - a || 1);
  const { report, gain } = state.found;
  const turn = (state.angle * Math.PI) / 180;
  const away = {
    0: [1, 0],
    1: [0, 1],
    angle: [Math.cos(turn), Math.sin(turn)],
    lie: gain > 0 ? report.map((value, j) => (value - values[j]) / range[j]) : [1, 0],
  }[auction.items === 1 ? 0 : state.direction];
  let from = -Infinity, to = Infinity;
  away.forEach((share, j) => {
    if (Math.abs(share) < 1e-12) return;
    const ends = [low[j], high[j]].map((end) => (end - values[j]) / range[j] / share).sort((a, b) => a - b);
    [from, to] = [Math.max(from, ends[0]), Math.min(to, ends[1])];
  });
  const item = Math.abs(away[0]) >= Math.abs(away[1]) ? 0 : 1;
  const reports = Array.from({ length: SAMPLES + 1 }, (_, k) => {
    const length = from + ((to - from) * k) / SAMPLES;
    return values.map((value, j) => value + length * away[j] * range[j]);
  });
  return { item, reports, ends: [reports[0], reports.at(-1)] };
}

function showLine(values, { item, reports }) {
  const { low, high } = auction.windows[state.bidder];
  const { offer } = state.table;
  const { truth, report, outcome, gain } = state.found;
  const honest = utility(values, truth);
  const points = reports.map((place) => [place[item], isShown(place) ? utility(values, offer.outcome(place)) : null]);
  const seen = points.map(([, height]) => height).filter((height) => height !== null);
  const most = Math.max(honest + gain, ...seen);
  const scale = Math.max(gain, ...state.table.layers[3]) || Infinity; // the gains to be seen on these maps
  const least = Math.max(Math.min(honest, ...seen), state.close ? honest - 3 * scale : -Infinity);
  const room = 0.12 * (most - least) || 0.01;
  const names = [`reported value of item ${item + 1}`, "utility"];
  const plot = new Plot(element("line"), [low[item], high[item]], [least - room, most + room], names);
  plot.lines([[low[item], honest], [high[item], honest]], { stroke: colour("quiet"), width: 1, dash: [4, 4] });
  plot.lines(points, { stroke: colour("curve") });
  const onLine = state.direction === "lie" || auction.items === 1;
  if (gain > 0 && onLine) plot.mark([report[item], honest + gain], "diamond");
  plot.mark([values[item], honest], "disc");
  element("line-name").textContent = `utility of reports${auction.items === 1 ? "" : " along the dashed line"}`;
  element("line").ariaLabel = `Utility of bidder ${state.bidder + 1} over reports; the truth has ${format(honest)}`;
}

function show() {
  if (!state.found) return;
  const values = state.profile[state.bidder];
  const line = reportsAlong(values);
  for (const map of maps) showMap(map, values, line.ends);
  showLie(values);
  showLine(values, line);
  sliders.forEach((rows, bidder) => {
    rows[0].input.closest("fieldset").className = bidder === state.bidder ? "chosen" : "";
    rows.forEach(({ input, number }, item) => {
      input.value = state.profile[bidder][item];
      number.textContent = format(state.profile[bidder][item], -1);
    });
  });
}
