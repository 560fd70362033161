"use strict";

// Axes on a canvas in the colours `ink`, and what is drawn in them.

function ticks(low, high, about) {
  const raw = (high - low) / about, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= 0.7 * raw);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
  return found.map((v) => [v, fixed(v, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)))]);
}

// A number as text, with a true minus, and none before zero.
function fixed(value, digits) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

function clear(canvas) {
  // a canvas that is not shown has no size, and nothing can be drawn in that
  const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((length) => Math.max(length, 100));
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.font = "12px system-ui, sans-serif";
  context.lineJoin = "round";
  return [context, width, height];
}

// Draws labelled axes over the ranges [low, high]; returns the context, clipped to them, and both scales.
function axes(canvas, xRange, yRange, xLabel, yLabel) {
  const [context, width, height] = clear(canvas);
  const box = { left: 58, right: width - 10, top: 8, bottom: height - 38 };
  if (canvas.className === "square") box.bottom = box.top + box.right - box.left;
  const X = (v) => box.left + ((v - xRange[0]) / (xRange[1] - xRange[0])) * (box.right - box.left);
  const Y = (v) => box.bottom - ((v - yRange[0]) / (yRange[1] - yRange[0])) * (box.bottom - box.top);
  context.fillStyle = ink.soft;
  context.strokeStyle = ink.line;
  context.lineWidth = 1;
  context.textAlign = "center";
  for (const [v, text] of ticks(...xRange, clamp((box.right - box.left) / 70, 2, 8))) {
    line(context, [[X(v), box.top], [X(v), box.bottom]]);
    context.fillText(text, X(v), box.bottom + 15);
  }
  context.fillText(xLabel, (box.left + box.right) / 2, box.bottom + 32);
  context.textAlign = "right";
  for (const [v, text] of ticks(...yRange, clamp((box.bottom - box.top) / 30, 2, 8))) {
    line(context, [[box.left, Y(v)], [box.right, Y(v)]]);
    context.fillText(text, box.left - 6, Y(v) + 4);
  }
  context.save();
  context.translate(13, (box.top + box.bottom) / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText(yLabel, 0, 0);
  context.restore();
  within({ context, box });
  const x = (pixel) => xRange[0] + ((pixel - box.left) / (box.right - box.left)) * (xRange[1] - xRange[0]);
  const y = (pixel) => yRange[0] + ((box.bottom - pixel) / (box.bottom - box.top)) * (yRange[1] - yRange[0]);
  return { context, X, Y, x, y, box };
}

// The directions to the right, up, and to the viewer, of whom `turn` tells the longitude and `tilt` the latitude, degrees.
function directions(turn, tilt) {
  const [a, b] = [turn, tilt].map((degrees) => (degrees * Math.PI) / 180);
  const [cosA, sinA, cosB, sinB] = [Math.cos(a), Math.sin(a), Math.cos(b), Math.sin(b)];
  return [[-sinA, cosA, 0], [-sinB * cosA, -sinB * sinA, cosB], [cosB * cosA, cosB * sinA, sinB]];
}

// Points, by axis, as components along directions.
function along(towards, points) {
  return towards.map(([x, y, z]) => points[0].map((_, i) => x * points[0][i] + y * points[1][i] + z * points[2][i]));
}

// Draws a box, half as wide as `edges`, seen from somewhere at a distance, with its axes; `draw` draws what is in it.
// Returns what `axes` does, of the plane of the view.
function boxed(canvas, far, edges, towards, names, draw) {
  const [context, width, height] = clear(canvas), side = Math.min(width, height) - 16;
  const box = { left: (width - side) / 2, right: (width + side) / 2, top: 8, bottom: 8 + side };
  const X = (v) => box.left + ((v + far) / (2 * far)) * side, Y = (v) => box.bottom - ((v + far) / (2 * far)) * side;
  const plot = { context, X, Y, box };
  const flat = (point) => along(towards.slice(0, 2), point.map((v) => [v])).map(([v]) => v);
  const segment = (from, to) => line(context, [from, to].map(flat).map(([x, y]) => [X(x), Y(y)]));
  within(plot);
  // edges that meet in the corner farthest from the viewer lie behind all that is in the box
  const behind = towards[2].map((part) => (part > 0 ? -1 : 1));
  const edgesOf = (isBehind) => edges.forEach((_, axis) => {
    for (const i of [-1, 1]) for (const j of [-1, 1]) {
      const [one, two] = [0, 1, 2].filter((other) => other !== axis);
      if ((behind[one] === i && behind[two] === j) !== isBehind) continue;
      const ends = [-1, 1].map((sign) => edges.map((edge, k) => edge * (k === axis ? sign : k === one ? i : j)));
      segment(...ends);
    }
  });
  context.lineWidth = 1;
  dashed(plot, ink.line, () => edgesOf(true));
  draw(plot);
  dashed(plot, ink.soft, () => edgesOf(false));
  context.textAlign = "center";
  context.lineWidth = 1.6;
  edges.forEach((edge, axis) => {
    const end = edges.map((_, k) => (k === axis ? 1.08 * edge : 0)), [x, y] = flat(end);
    context.strokeStyle = context.fillStyle = ink["xyz"[axis]];
    segment([0, 0, 0], end);
    if (Math.hypot(x, y) > 0.2 * edge) context.fillText(names[axis], X(1.1 * x), Y(1.1 * y) + 4);
  });
  return plot;
}

// Lets nothing be drawn outside the box of axes.
function within({ context, box }) {
  context.beginPath();
  context.rect(box.left, box.top, box.right - box.left, box.bottom - box.top);
  context.clip();
}

function line(context, points) {
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

function curve({ context, X, Y }, x, y, colour, width = 1.3) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  let points = [];
  y.forEach((v, i) => {
    if (v !== null) points.push([X(x[i]), Y(v)]);
    else { line(context, points); points = []; }
  });
  line(context, points);
}

function dashed({ context }, colour, draw) {
  context.strokeStyle = colour;
  context.setLineDash([5, 4]);
  draw();
  context.setLineDash([]);
}

function dot(context, x, y, radius, colour, edge) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
  if (edge) { context.strokeStyle = edge; context.lineWidth = 2; context.stroke(); }
}
