"use strict";

const at = { frame: 0, slice: Math.floor(data.slices.length / 2) };
const pictures = data.images.map(({ label, pictures }) => {
  const figure = make($("pictures"), "figure", {}), box = make(figure, "div", { className: "compare" });
  const image = make(box, "img", {});
  image.style.aspectRatio = data.aspect;
  make(box, "span", { className: "tag", textContent: label });
  return { label, pictures, image };
});

function showPictures() {
  const place = `slice ${data.slices[at.slice]}, frame ${data.frames[at.frame]}`;
  for (const { label, pictures: of, image } of pictures) {
    image.src = of[at.frame][at.slice];
    image.alt = `${label}, ${place}`;
  }
  for (const name of ["slice", "frame"]) {
    if (!$(name)) continue;
    $(name).value = at[name];
    $(`${name}-text`).textContent = `${data[`${name}s`][at[name]]}`;
  }
}
for (const name of ["slice", "frame"]) {
  $(name)?.addEventListener("input", (event) => { at[name] = Number(event.target.value); showPictures(); });
}

function brighten() {
  const times = 16 ** ($("bright").value / 100);
  for (const { image } of pictures) image.style.filter = `brightness(${times})`;
  $("bright-text").textContent = `× ${times.toPrecision(2)}`;
}
$("bright").addEventListener("input", brighten);

// Draws the unexplained parts under a key; `x` tells where each of n stands.
function drawResidual(canvas, key, x, range, xLabel) {
  const percent = (values) => values.map((v) => (v === null ? null : 100 * v));
  // where there is no signal, noise is all of it, and may leave the picture
  const noise = [...data.noise[key]].sort((a, b) => a - b)[data.noise[key].length >> 1];
  const top = 110 * Math.max(1e-5, noise, ...data.residual.flatMap(({ found }) => found[key]));
  const plot = axes($(canvas), range, [0, top], xLabel, "unexplained (%)");
  const draw = (values, colour, width) => {
    curve(plot, values.map((_, i) => x(i, values.length)), percent(values), colour, width);
  };
  draw(data.noise[key], ink.soft, 1.2);
  for (const { ink: name, found, promised } of data.residual) {
    if (promised) dashed(plot, ink[name], () => draw(promised[key], ink[name], 1.2));
    draw(found[key], ink[name], 1.8);
    const n = found[key].length;
    if (n <= 40) found[key].forEach((v, i) => dot(plot.context, plot.X(x(i, n)), plot.Y(100 * v), 2.6, ink[name]));
  }
}

function drawDelay() {
  const { tried, criterion, axes: found } = data.delay, late = tried.map((v) => 1e6 * v);
  const low = Math.min(...criterion), high = Math.max(...criterion), air = 0.08 * (high - low) || 1;
  const range = [Math.min(...late, ...found.map((v) => 1e6 * v)) - 0.5, Math.max(...late, ...found.map((v) => 1e6 * v)) + 0.5];
  const name = data.delay.by === "consistency" ? "unexplained" : "spread";
  const plot = axes($("delay-plot"), range, [low - air, high + air], "delay of all axes (µs)", name);
  curve(plot, late, criterion, ink.one, 1.8);
  late.forEach((v, i) => dot(plot.context, plot.X(v), plot.Y(criterion[i]), 2.6, ink.one));
  found.forEach((v, i) => {
    plot.context.strokeStyle = ink["xy"[i]];
    plot.context.lineWidth = 1.5;
    line(plot.context, [[plot.X(1e6 * v), plot.box.top], [plot.X(1e6 * v), plot.box.bottom]]);
  });
}

function drawAll() {
  const nShots = data.noise.of_shots.length, ms = 1e3 * data.readout;
  drawResidual("shots-plot", "of_shots", (i) => i, [-0.5, nShots - 0.5], "shot");
  drawResidual("time-plot", "over_time", (i, n) => ((i + 0.5) / n) * ms, [0, ms], "time in the readout (ms)");
  if (data.delay) drawDelay();
}

showPictures();
brighten();
setTheme(wished());
