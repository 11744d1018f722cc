// Pictures on canvases: maps over the plane of values, and curves.

/** A colour of the style sheet, which knows light and dark. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** A rectangle with axes on a canvas; `x` and `y` turn values into pixels, `at` does the reverse. */
class Plot {
  constructor(canvas, across, up, names) {
    const { width, height } = canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    this.ink = canvas.getContext("2d");
    this.ink.scale(ratio, ratio);
    this.ink.font = `12px ${getComputedStyle(canvas).fontFamily}`;
    const rows = ticks(...up, height / 45);
    const left = 28 + Math.max(...rows.map((tick) => this.ink.measureText(tick).width));
    Object.assign(this, { across, up, left, right: width - 10, top: 8, bottom: height - 36 });
    this.axes(names, rows);
  }

  x(value) {
    return this.left + ((value - this.across[0]) / (this.across[1] - this.across[0])) * (this.right - this.left);
  }

  y(value) {
    return this.bottom - ((value - this.up[0]) / (this.up[1] - this.up[0])) * (this.bottom - this.top);
  }

  /** The values under a pointer. */
  at({ offsetX, offsetY }) {
    const [a, b] = this.across, [c, d] = this.up;
    return [
      a + ((offsetX - this.left) / (this.right - this.left)) * (b - a),
      c + ((this.bottom - offsetY) / (this.bottom - this.top)) * (d - c),
    ];
  }

  axes([across, up], rows) {
    const { ink, left, right, top, bottom } = this;
    ink.fillStyle = colour("quiet");
    ink.strokeStyle = colour("rule");
    ink.strokeRect(left - 0.5, top - 0.5, right - left + 1, bottom - top + 1);
    ink.textAlign = "center";
    ink.textBaseline = "top";
    for (const tick of ticks(...this.across, (right - left) / 55)) ink.fillText(tick, this.x(tick), bottom + 5);
    ink.fillText(across, (left + right) / 2, bottom + 21);
    ink.textAlign = "right";
    ink.textBaseline = "middle";
    for (const tick of rows) ink.fillText(tick, left - 6, this.y(tick));
    ink.save();
    ink.translate(9, (top + bottom) / 2);
    ink.rotate(-Math.PI / 2);
    ink.textAlign = "center";
    ink.fillText(up, 0, 0);
    ink.restore();
  }

  /** Draw inside the frame only. */
  inside(draw) {
    const { ink, left, right, top, bottom } = this;
    ink.save();
    ink.beginPath();
    ink.rect(left, top, right - left, bottom - top);
    ink.clip();
    draw(ink);
    ink.restore();
  }

  /** Lines between points, in a colour on a halo of another; [x, null] leaves a gap. */
  lines(points, { stroke, width = 2, halo = null, dash = [] }) {
    this.inside((ink) => {
      ink.beginPath();
      let open = false;
      for (const [x, y] of points) {
        if (y !== null) ink[open ? "lineTo" : "moveTo"](this.x(x), this.y(y));
        open = y !== null;
      }
      ink.lineJoin = ink.lineCap = "round";
      ink.setLineDash(dash);
      for (const [style, thick] of halo ? [[halo, width + 2], [stroke, width]] : [[stroke, width]]) {
        [ink.strokeStyle, ink.lineWidth] = [style, thick];
        ink.stroke();
      }
    });
  }

  /** A disc (the truth), a diamond (the lie) or an atom (of the support); outside the frame it is drawn at the edge. */
  mark([x, y], shape) {
    const { ink } = this;
    const px = Math.min(this.right, Math.max(this.left, this.x(x)));
    const py = Math.min(this.bottom, Math.max(this.top, this.y(y)));
    ink.beginPath();
    if (shape === "diamond") [[0, -8], [8, 0], [0, 8], [-8, 0]].forEach(([a, b]) => ink.lineTo(px + a, py + b));
    else ink.arc(px, py, shape === "disc" ? 6.5 : 3, 0, 2 * Math.PI);
    ink.closePath();
    ink.fillStyle = colour(shape);
    ink.strokeStyle = colour("halo");
    ink.lineWidth = 4;
    ink.stroke();
    ink.strokeStyle = colour("mark");
    ink.lineWidth = 2;
    ink.stroke();
    ink.fill();
  }
}

/** Round numbers from a to b, about `count` of them. */
function ticks(a, b, count) {
  const raw = (b - a) / Math.max(2, Math.min(6, count));
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999) * power;
  const first = Math.ceil(a / step - 1e-9), last = Math.floor(b / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, k) => Number(((first + k) * step).toPrecision(6)));
}

/** 256 colours from a ramp of the style sheet, as bytes. */
function ramp(name) {
  const strip = new OffscreenCanvas(256, 1).getContext("2d");
  const gradient = strip.createLinearGradient(0, 0, 256, 0);
  [0, 1, 2].forEach((stop) => gradient.addColorStop(stop / 2, colour(`${name}-${stop}`)));
  strip.fillStyle = gradient;
  strip.fillRect(0, 0, 256, 1);
  return strip.getImageData(0, 0, 256, 1).data;
}

/** A layer of a table as a map, each node in its place and smooth between them; only where values may lie. */
function drawMap(plot, table, layer, most, rampName, optimum) {
  const [columns, rows] = table.axes.map((axis) => axis.length);
  const colours = ramp(rampName);
  const image = new ImageData(columns, rows);
  table.layers[layer].forEach((number, node) => {
    const shade = Math.round(255 * Math.min(1, Math.max(0, number / most || 0)));
    const pixel = (rows - 1 - Math.floor(node / columns)) * columns + (node % columns);
    image.data.set(colours.subarray(4 * shade, 4 * shade + 4), 4 * pixel);
  });
  const tile = new OffscreenCanvas(columns, rows);
  tile.getContext("2d").putImageData(image, 0, 0);
  const { support } = table.offer;
  plot.inside((ink) => {
    ink.fillStyle = colour("outside");
    ink.fillRect(plot.left, plot.top, plot.right - plot.left, plot.bottom - plot.top);
    if (hasArea(support)) {
      ink.beginPath();
      for (const polygon of support) {
        polygon.forEach(([a, b], k) => ink[k ? "lineTo" : "moveTo"](plot.x(a), plot.y(b)));
        ink.closePath();
      }
      ink.clip();
    }
    ink.imageSmoothingEnabled = true;
    ink.drawImage(
      tile, 0.5, 0.5, columns - 1, rows - 1,
      plot.left, plot.top, plot.right - plot.left, plot.bottom - plot.top,
    );
  });
  if (!hasArea(support)) support.flat().forEach((corner) => plot.mark(corner, "atom"));
  for (const edge of optimum) plot.lines(edge, { stroke: colour("disc"), halo: colour("mark"), width: 1.5 });
}
