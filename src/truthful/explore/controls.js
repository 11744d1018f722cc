// What is turned: sliders of all values, who is looked at, the line's direction.

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const sliders = []; // of each bidder, of each item: the input, and the number beside it

function buildValues() {
  for (let bidder = 0; bidder < auction.bidders; bidder++) {
    const { low, high } = auction.windows[bidder];
    const rows = Array.from({ length: auction.items }, (_, item) => {
      const input = make("input", {
        type: "range", min: low[item], max: high[item], step: "any",
        oninput: () => setValues(bidder, state.profile[bidder].with(item, Number(input.value))),
        onkeydown: (event) => {
          const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
          if (way) nudge(event, bidder, item, way);
        },
      });
      return { input, number: make("output"), name: `value of item ${item + 1}` };
    });
    sliders.push(rows);
    const chosen = make("input", {
      type: "radio", name: "bidder", checked: bidder === state.bidder,
      onchange: () => {
        state.bidder = bidder;
        soon(true);
      },
    });
    const legend = make("legend", {}, `Bidder ${bidder + 1} `);
    if (auction.bidders > 1) legend.append(make("label", {}, chosen, "shown"));
    const labels = rows.map(({ input, number, name }) => make("label", {}, name, number, input));
    element("values").append(make("fieldset", {}, legend, ...labels));
  }
  const lines = auction.optimum.length ? " Straight lines: the regions of the optimal auction." : "";
  element("values").append(make("p", {
    className: "quiet", textContent: `Drag the disc on a map, use the sliders, or arrow keys on either.${lines}`,
  }));
  element("values").append(make("button", {
    type: "button", textContent: "Go to the most tempting value",
    title: "The value on this map from which the best lie gains most",
    onclick: () => setValues(state.bidder, state.table.mostTempting(state.profile[state.bidder])),
  }));
}

/** Move one value by a step of the fine grid, with shift by an eighth of the range, and over gaps of the support. */
function nudge(event, bidder, item, way) {
  event.preventDefault();
  const { low, high } = auction.windows[bidder];
  const old = state.profile[bidder];
  for (let step = (high[item] - low[item]) / (event.shiftKey ? 8 : FINE.cells); ; step *= 2) {
    const wanted = Math.min(high[item], Math.max(low[item], old[item] + way * step));
    const values = project(auction.supports[bidder], old.with(item, wanted));
    if (values[item] === old[item] && wanted !== low[item] && wanted !== high[item]) continue;
    return setValues(bidder, values);
  }
}

function buildDirection() {
  const choices = [["lie", "towards the lie"], ["0", "item 1"], ["1", "item 2"], ["angle", "angle"]];
  const pick = (direction) => {
    state.direction = direction;
    for (const input of element("direction").querySelectorAll("[type=radio]")) {
      input.checked = input.value === direction;
    }
    show();
  };
  const angle = make("input", {
    type: "range", min: 0, max: 180, step: 1, value: state.angle, ariaLabel: "angle in degrees",
    oninput: () => {
      state.angle = Number(angle.value);
      pick("angle");
    },
  });
  const labels = choices.map(([value, name]) => {
    const input = make("input", { type: "radio", name: "direction", value, onchange: () => pick(value) });
    return make("label", {}, input, name);
  });
  labels.at(-1).append(angle);
  const close = make("input", {
    type: "checkbox", checked: state.close,
    onchange: () => {
      state.close = close.checked;
      show();
    },
  });
  if (auction.items > 1) element("direction").append(...labels);
  element("direction").append(make("label", {}, close, "close up"));
  pick(state.direction);
}
