"use strict";

const inkOf = (label) => ({ fixed: "one", learned: "two" })[label];

// ---- the player: a shot, and in it a time counted in ADC samples

const nSamples = data.trajectories[0].k_adc[0][0].length, nShots = data.trajectories[0].k_adc.length;
const isVolume = data.k_max.length === 3, nOfFrame = nShots / data.n_frames;
const frameOf = (shot) => Math.floor(shot / nOfFrame);
const colourOf = (shot) => data.shot_colours[theme][shot % nOfFrame];
const now = { shot: nShots - 1, sample: nSamples - 1, playing: false, last: 0 };
const seconds = () => data.times.adc[0] + now.sample * data.times.adc[1];
const across = (values, i) => (data.norm === "vector" ? Math.hypot(...values.map((axis) => axis[i]))
  : Math.max(...values.map((axis) => Math.abs(axis[i]))));
const waveforms = [
  { key: "gradient", scale: 1e3, unit: "mT/m", label: "gradient (mT/m)" },
  { key: "slew", scale: 1, unit: "T/m/s", label: "slew rate (T/m/s)" },
];
const reached = [...data.k_max];
for (const t of data.trajectories) for (const shot of t.k_adc) shot.forEach((axis, i) => {
  for (const k of axis) reached[i] = Math.max(reached[i], Math.abs(k));
});
// however it is turned, a volume fits into the picture
const reach = 1.06 * (isVolume ? Math.hypot(...reached) : Math.max(...reached));
// k, by axis, as it lies in the picture
const seen = (k) => (isVolume ? along(directions($("turn").value, $("tilt").value).slice(0, 2), k) : k);

const columns = data.trajectories.map((trajectory) => {
  const div = make($("columns"), "div", { className: "column" });
  make(div, "h3", { textContent: trajectory.label });
  const canvas = (className, label) => {
    const made = make(div, "canvas", { className, role: "img", ariaLabel: `${trajectory.label}: ${label}` });
    return made;
  };
  const k = canvas(isVolume ? "square turns" : "square", "k-space");
  const column = { trajectory, paper: document.createElement("canvas"), key: "", k };
  for (const { key, label } of waveforms) {
    column[key] = canvas("low", `${label} of the shot over time`);
    drag(column[key], (x) => {
      const sample = (column[`${key}Axes`].x(x) / 1e3 - data.times.adc[0]) / data.times.adc[1];
      move(now.shot, sample);
    });
  }
  if (isVolume) turnBy(column.k);
  else drag(column.k, (x, y) => {
    const [kx, ky] = trajectory.k_adc[now.shot], at = column.kAxes;
    const distance = (i) => Math.hypot(kx[i] - at.x(x), ky[i] - at.y(y));
    move(now.shot, kx.reduce((best, _, i) => (distance(i) < distance(best) ? i : best), 0));
  });
  column.readout = make(div, "p", { className: "readout" });
  return column;
});

// Lets a canvas be turned; what it shows follows the pointer.
function turnBy(canvas) {
  let held;
  drag(canvas, (x, y, _, begins) => {
    if (begins) held = { x, y, turn: Number($("turn").value), tilt: Number($("tilt").value) };
    $("turn").value = ((((held.turn - (x - held.x) / 2 + 180) % 360) + 360) % 360) - 180;
    $("tilt").value = held.tilt + (y - held.y) / 2;
    drawPlayer();
  });
}

// Draws the shots of other frames faintly, and before them those of this one: played, and less those to come.
function drawShots(plot, shots) {
  for (const inFront of [false, true]) shots.forEach((k, shot) => {
    if ((frameOf(shot) === frameOf(now.shot)) !== inFront) return;
    plot.context.globalAlpha = !inFront ? 0.06 : shot < now.shot ? 0.8 : 0.16;
    curve(plot, ...seen(k), colourOf(shot), 1);
  });
  plot.context.globalAlpha = 1;
}

// What does not move while a shot plays is drawn once: axes, shots that were played, and faintly those to come.
function drawPaper(column) {
  const far = reach / $("zoom").value, shots = column.trajectory.k_adc;
  if (isVolume) {
    const names = data.k_max.map((k, i) => `k${"xyz"[i]}, ${fixed(k, 0)} 1/m`);
    const towards = directions($("turn").value, $("tilt").value);
    column.kAxes = boxed(column.k, far, data.k_max, towards, names, (plot) => drawShots(plot, shots));
  } else {
    const plot = axes(column.k, [-far, far], [-far, far], "kx (1/m)", "ky (1/m)");
    const { context, X, Y } = plot, [kx, ky] = data.k_max;
    dashed(plot, ink.soft, () => context.strokeRect(X(-kx), Y(ky), X(kx) - X(-kx), Y(-ky) - Y(ky)));
    drawShots(plot, shots);
    column.kAxes = plot;
  }
  column.paper.width = column.k.width; // which clears it
  column.paper.height = column.k.height;
  column.paper.getContext("2d").drawImage(column.k, 0, 0);
}

function drawK(column) {
  const view = ["zoom", "turn", "tilt"].map((name) => $(name)?.value);
  const key = [now.shot, ...view, theme, column.k.clientWidth, window.devicePixelRatio].join();
  if (column.key !== key) drawPaper(column);
  column.key = key;
  const plot = column.kAxes, { context, X, Y } = plot, k = column.trajectory.k_adc[now.shot];
  clear(column.k); // of its axes too, which the paper brings back, and of the limits within which was drawn
  context.save();
  context.resetTransform();
  context.drawImage(column.paper, 0, 0);
  context.restore();
  within(plot);
  const until = Math.floor(now.sample), part = now.sample - until, next = Math.min(until + 1, nSamples - 1);
  const place = k.map((axis) => axis[until] + part * (axis[next] - axis[until]));
  const [x, y] = seen(k.map((axis, i) => [...axis.slice(0, until + 1), place[i]])), colour = colourOf(now.shot);
  curve(plot, x, y, colour, 2.2);
  if ($("zoom").value >= 4) for (let i = 0; i <= until; i++) dot(context, X(x[i]), Y(y[i]), 2.2, colour);
  dot(context, X(x[until + 1]), Y(y[until + 1]), 5, ink.bad, ink.card);
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
  values.forEach((axis, i) => curve(plot, time, axis.map((v) => scale * v), ink["xyz"[i]]));
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
    const k = drawK(column).map((v) => fixed(v, 1)).join(", ");
    const facts = waveforms.map((waveform) => drawWaveform(column, waveform));
    column.readout.textContent = [`k = (${k}) 1/m`, ...facts].join(" · ").replace("slew", "slew rate");
  }
  $("time").value = now.sample;
  $("shot").value = now.shot;
  if ($("frame")) $("frame").value = frameOf(now.shot);
  $("clock").textContent = `${fixed(1e3 * seconds(), 3)} ms`;
  $("time").setAttribute("aria-valuetext", `shot ${$("shot").selectedOptions[0].text}, ${$("clock").textContent}`);
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
$("frame")?.addEventListener("input", (event) => {
  move(Number(event.target.value) * nOfFrame + (now.shot % nOfFrame), now.sample);
});
for (const name of ["zoom", "turn", "tilt"]) $(name)?.addEventListener("input", drawPlayer);
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

// Slices of a volume, or frames of a film: which of those that are shown, and whether they play.
const planes = { at: 0, playing: false, last: 0, aSecond: 8 };

function showImages() {
  const view = $("view").value;
  for (const image of document.querySelectorAll("#images img[data-label]")) {
    const example = data.examples.find(({ label }) => label === image.dataset.label);
    image.src = example[image.dataset.view || view][planes.at];
    image.alt = `${example.label}, ${image.dataset.view || $("view").selectedOptions[0].textContent}`;
  }
  $("reference").src = data.reference[planes.at];
  const part = view === "adjoint" ? "adjoint" : "network";
  $("scores").textContent = data.examples.map(({ label, scores }) => `${label}: ${scores[part]}`).join(" · ");
}
$("view").addEventListener("input", showImages);

function showPlane(at) {
  planes.at = at;
  $("plane").value = at;
  $("plane-text").textContent = `${data.planes[at]}`;
  $("plane").setAttribute("aria-valuetext", $("plane-text").textContent);
  $("planes-play").textContent = planes.playing ? "❚❚ Pause" : "▶ Play";
  showImages();
}

function tickPlanes(time) {
  if (!planes.playing) return;
  const steps = Math.floor(((time - planes.last) / 1e3) * planes.aSecond);
  planes.last += (1e3 * steps) / planes.aSecond;
  if (steps > 0) showPlane((planes.at + steps) % data.planes.length);
  requestAnimationFrame(tickPlanes);
}

if ($("plane")) {
  $("plane").addEventListener("input", (event) => showPlane(Number(event.target.value)));
  $("planes-play").addEventListener("click", () => {
    planes.playing = !planes.playing;
    planes.last = performance.now();
    requestAnimationFrame(tickPlanes);
    showPlane(planes.at);
  });
  showPlane(data.planes.length >> 1);
}
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
