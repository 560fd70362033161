"use strict";

const inkOf = (label) => ({ fixed: "one", learned: "two" })[label];

// ---- the player: a shot, and in it a time counted in ADC samples

const nSamples = data.trajectories[0].k_adc[0][0].length, nShots = data.trajectories[0].k_adc.length;
const now = { shot: nShots - 1, sample: nSamples - 1, playing: false, last: 0 };
const seconds = () => data.times.adc[0] + now.sample * data.times.adc[1];
const across = (values, i) => (data.norm === "vector" ? Math.hypot(...values.map((axis) => axis[i]))
  : Math.max(...values.map((axis) => Math.abs(axis[i]))));
const waveforms = [
  { key: "gradient", scale: 1e3, unit: "mT/m", label: "gradient (mT/m)" },
  { key: "slew", scale: 1, unit: "T/m/s", label: "slew rate (T/m/s)" },
];
let reach = 0;
for (const t of data.trajectories) for (const shot of t.k_adc) for (const axis of shot) for (const k of axis) {
  reach = Math.max(reach, Math.abs(k));
}
reach = 1.06 * Math.max(reach, ...data.k_max);

const columns = data.trajectories.map((trajectory) => {
  const div = make($("columns"), "div", { className: "column" });
  make(div, "h3", { textContent: trajectory.label });
  const canvas = (className, label) => {
    const made = make(div, "canvas", { className, role: "img", ariaLabel: `${trajectory.label}: ${label}` });
    return made;
  };
  const column = { trajectory, paper: document.createElement("canvas"), key: "", k: canvas("square", "k-space") };
  for (const { key, label } of waveforms) {
    column[key] = canvas("low", `${label} of the shot over time`);
    drag(column[key], (x) => {
      const sample = (column[`${key}Axes`].x(x) / 1e3 - data.times.adc[0]) / data.times.adc[1];
      move(now.shot, sample);
    });
  }
  drag(column.k, (x, y) => {
    const [kx, ky] = trajectory.k_adc[now.shot], at = column.kAxes;
    const distance = (i) => Math.hypot(kx[i] - at.x(x), ky[i] - at.y(y));
    move(now.shot, kx.reduce((best, _, i) => (distance(i) < distance(best) ? i : best), 0));
  });
  column.readout = make(div, "p", { className: "readout" });
  return column;
});

// What does not move while a shot plays is drawn once: axes, shots that were played, and faintly those to come.
function drawPaper(column) {
  const far = reach / $("zoom").value;
  const plot = axes(column.k, [-far, far], [-far, far], "kx (1/m)", "ky (1/m)");
  const { context, X, Y } = plot, [kx, ky] = data.k_max;
  dashed(plot, ink.soft, () => context.strokeRect(X(-kx), Y(ky), X(kx) - X(-kx), Y(-ky) - Y(ky)));
  column.trajectory.k_adc.forEach(([x, y], shot) => {
    context.globalAlpha = shot < now.shot ? 0.8 : 0.16;
    curve(plot, x, y, data.shot_colours[theme][shot], 1);
  });
  context.globalAlpha = 1;
  column.kAxes = plot;
  column.paper.width = column.k.width; // which clears it
  column.paper.height = column.k.height;
  column.paper.getContext("2d").drawImage(column.k, 0, 0);
}

function drawK(column) {
  const key = [now.shot, $("zoom").value, theme, column.k.clientWidth, window.devicePixelRatio].join();
  if (column.key !== key) drawPaper(column);
  column.key = key;
  const plot = column.kAxes, { context, X, Y } = plot, [kx, ky] = column.trajectory.k_adc[now.shot];
  clear(column.k); // of its axes too, which the paper brings back, and of the limits within which was drawn
  context.save();
  context.resetTransform();
  context.drawImage(column.paper, 0, 0);
  context.restore();
  within(plot);
  const until = Math.floor(now.sample), part = now.sample - until, next = Math.min(until + 1, nSamples - 1);
  const place = [kx, ky].map((axis) => axis[until] + part * (axis[next] - axis[until]));
  const colour = data.shot_colours[theme][now.shot];
  curve(plot, [...kx.slice(0, until + 1), place[0]], [...ky.slice(0, until + 1), place[1]], colour, 2.2);
  if ($("zoom").value >= 4) for (let i = 0; i <= until; i++) dot(context, X(kx[i]), Y(ky[i]), 2.2, colour);
  dot(context, X(place[0]), Y(place[1]), 5, ink.bad, ink.card);
  return place;
}

function drawWaveform(column, { key, scale, unit, label }) {
  const values = column.trajectory[key][now.shot], limits = Object.values(data.limits[key]);
  const [start, step] = data.times[key], time = values[0].map((_, j) => 1e3 * (start + j * step));
  const norm = time.map((_, j) => across(values, j));
  const top = 1.12 * scale * Math.max(...limits, ...norm);
  const end = 1e3 * (data.times.adc[0] + (nSamples - 1) * data.times.adc[1]);
  const plot = axes(column[key], [0, end], [-top, top], "time in the shot (ms)", label);
  const { context, X, Y, box } = plot;
  column[`${key}Axes`] = plot;
  limits.forEach((limit, i) => {
    for (const y of [Y(scale * limit), Y(-scale * limit)]) {
      const draw = () => line(context, [[box.left, y], [box.right, y]]);
      context.strokeStyle = ink.bad;
      context.lineWidth = 1.2;
      if (i) dashed(plot, ink.bad, draw); else draw();
    }
  });
  values.forEach((axis, i) => curve(plot, time, axis.map((v) => scale * v), ink["xy"[i]]));
  curve(plot, time, norm.map((v) => scale * v), ink.text, 1.8);
  const x = X(1e3 * seconds()), j = clamp(Math.round((seconds() - start) / step), 0, norm.length - 1);
  context.strokeStyle = ink.soft;
  context.lineWidth = 1;
  line(context, [[x, box.top], [x, box.bottom]]);
  dot(context, x, Y(scale * norm[j]), 4.5, ink.bad, ink.card);
  const [name, least] = Object.entries(data.limits[key]).reduce((a, b) => (b[1] < a[1] ? b : a));
  return `${key} ${fixed(scale * norm[j], 2)} of ${(scale * least).toPrecision(3)} ${unit} (${name})`;
}

function drawPlayer() {
  for (const column of columns) {
    const [kx, ky] = drawK(column).map((v) => fixed(v, 1));
    const facts = waveforms.map((waveform) => drawWaveform(column, waveform));
    column.readout.textContent = [`k = (${kx}, ${ky}) 1/m`, ...facts].join(" · ").replace("slew", "slew rate");
  }
  $("time").value = now.sample;
  $("shot").value = now.shot;
  $("clock").textContent = `${fixed(1e3 * seconds(), 3)} ms`;
  $("time").setAttribute("aria-valuetext", `shot ${now.shot}, ${$("clock").textContent}`);
  $("play").textContent = now.playing ? "❚❚ Pause" : "▶ Play";
}

function move(shot, sample) {
  now.shot = shot;
  now.sample = clamp(sample, 0, nSamples - 1);
  drawPlayer();
}

function tick(time) {
  if (!now.playing) return;
  const sample = now.sample + (time - now.last) / 1e3 / $("slowness").value / data.times.adc[1];
  now.last = time;
  if (sample < nSamples - 1) move(now.shot, sample);
  else if (now.shot < nShots - 1) move(now.shot + 1, 0);
  else { now.playing = false; move(now.shot, nSamples - 1); }
  requestAnimationFrame(tick);
}

$("play").addEventListener("click", () => {
  now.playing = !now.playing;
  if (now.playing && now.shot === nShots - 1 && now.sample >= nSamples - 1) move(0, 0);
  now.last = performance.now();
  requestAnimationFrame(tick);
  drawPlayer();
});
$("time").addEventListener("input", (event) => move(now.shot, Number(event.target.value)));
$("shot").addEventListener("input", (event) => move(Number(event.target.value), now.sample));
$("zoom").addEventListener("input", drawPlayer);
for (const button of document.querySelectorAll("button[data-shot]")) {
  button.addEventListener("click", () => {
    move(Number(button.dataset.shot), (button.dataset.time - data.times.adc[0]) / data.times.adc[1]);
    $("trajectories").scrollIntoView();
  });
}

// ---- point spread functions

const widest = Math.max(...data.fov);
const spreads = data.psfs.map((psf) => {
  const div = make($("psfs"), "div", {});
  make(div, "h3", { textContent: psf.label });
  const canvas = make(div, "canvas", { className: "square", role: "img", ariaLabel: `${psf.label}: point spread` });
  const images = psf.images.map(({ source }) => {
    const image = new Image();
    image.addEventListener("load", drawPsfs);
    image.src = source;
    return image;
  });
  return { psf, canvas, images };
});

function drawPsfs() {
  const narrowest = 3 * Math.max(...data.voxel);
  const half = 1e3 * narrowest * (widest / narrowest) ** ($("reach").value / 100);
  $("reach-text").textContent = `± ${half.toPrecision(3)} mm`;
  for (const { psf, canvas, images } of spreads) {
    const plot = axes(canvas, [-half, half], [-half, half], "x (mm)", "y (mm)"), { context, X, Y } = plot;
    context.imageSmoothingQuality = "high";
    // one image alone, the closest that fills the plot: where two met, their edge would show
    const fills = ({ edges }) => Math.min(...edges.map(Math.abs)) >= half / 1e3;
    const i = Math.max(0, psf.images.findLastIndex(fills));
    const [left, bottom, right, top] = psf.images[i].edges.map((edge) => 1e3 * edge);
    if (images[i].complete) context.drawImage(images[i], X(left), Y(top), X(right) - X(left), Y(bottom) - Y(top));
    const [rx, ry] = psf.main_lobe.map((r) => 1e3 * r * (X(1) - X(0))), [fx, fy] = data.fov.map((extent) => 500 * extent);
    context.lineWidth = 1.2;
    dashed(plot, "#fff", () => {
      context.beginPath();
      context.ellipse(X(0), Y(0), rx, ry, 0, 0, 2 * Math.PI);
      context.stroke();
      context.strokeRect(X(-fx), Y(fy), X(fx) - X(-fx), Y(-fy) - Y(fy));
    });
  }
  const name = $("profile").value, around = name === "mean" || name === "largest";
  const range = around ? [0, Math.min(half, 500 * Math.min(...data.fov))] : [-half, half];
  const plot = axes($("profile-plot"), range, [-70, 3], around ? "distance (mm)" : `${name} (mm)`, "|PSF| (dB)");
  for (const { label, profiles } of data.psfs) {
    const { x, y } = profiles[name];
    curve(plot, x.map((v) => 1e3 * v), y.map((v) => 20 * Math.log10(Math.max(v, 1e-12))), ink[inkOf(label)], 1.6);
  }
}
$("reach").addEventListener("input", drawPsfs);
$("profile").addEventListener("input", drawPsfs);

// ---- images, learning, and the rest of the page

function showImages() {
  const view = $("view").value;
  for (const image of document.querySelectorAll("#compare img")) {
    const example = data.examples.find(({ label }) => label === image.dataset.label);
    image.src = example[view];
    image.alt = `${example.label}, ${$("view").selectedOptions[0].textContent}`;
  }
  $("reference").src = data.reference;
  const part = view === "adjoint" ? "adjoint" : "network";
  $("scores").textContent = data.examples.map(({ label, scores }) => `${label}: ${scores[part]}`).join(" · ");
}
$("view").addEventListener("input", showImages);
if ($("split")) {
  const split = () => $("compare").style.setProperty("--split", `${$("split").value}%`);
  $("split").addEventListener("input", split);
  drag($("compare"), (x, _, box) => { $("split").value = (100 * x) / box.width; split(); });
}

function drawLearning() {
  const all = data.curves.flatMap(({ y }) => y).filter((v) => v !== null);
  if (!all.length) return;
  const low = Math.min(...all), high = Math.max(...all), air = 0.08 * (high - low) || 1;
  const end = Math.max(...data.curves.flatMap(({ x }) => x));
  const plot = axes($("learning-plot"), [0, 1.02 * end], [low - air, high + air], "step", "validation PSNR (dB)");
  for (const { label, x, y } of data.curves) {
    curve(plot, x, y, ink[inkOf(label)], 1.8);
    y.forEach((v, i) => { if (v !== null) dot(plot.context, plot.X(x[i]), plot.Y(v), 2.6, ink[inkOf(label)]); });
  }
}

function drawAll() {
  drawPlayer();
  drawPsfs();
  drawLearning();
}

showImages();
setTheme(wished());
