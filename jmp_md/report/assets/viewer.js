// Fills each .view with a 3Dmol viewer and its controls, and links figures with its frames.
const COLOURS = { light: "#ffffff", dark: "#16181b" };
const PHASES = 24, SWING = 0.4; // frames of a vibration; Å that its fastest atom moves
const MOST_ATOMS = 60000; // of all frames of a supercell: what a browser builds without effort

for (const [index, data] of VIEWS.entries()) {
  const element = document.getElementById("view" + index);
  try {
    element.view = new View(element, data);
    for (const plot of document.querySelectorAll(`.plot[data-view="${index}"]`)) link(plot, element.view);
    element.dataset.ready = "true";
  } catch (error) {
    element.textContent = "The 3D view needs WebGL, which this browser does not offer: " + error;
  }
}

function View(element, data) {
  const viewer = $3Dmol.createViewer(element, {});
  const bar = below(element, "controls"), said = below(bar, "said");
  const marks = []; // functions called with the number of each new frame
  let frame = 0, frames = [], picked = [], timer = null, wrapped = false, repeats = 1;

  const cellOf = (i) => data.cells && data.cells[Math.min(i, data.cells.length - 1)];
  const symbolsOf = (i) => data.symbols[Math.min(i, data.symbols.length - 1)];

  function rebuild(keep) {
    frames = data.frames.map((flat, i) => arranged(symbolsOf(i), triples(flat), cellOf(i)));
    if (mode.value) frames = vibration(frames[0], data.modes[mode.value].vector, frames[0].source);
    viewer.removeAllModels();
    viewer.addModelsAsFrames(frames.map(xyz).join(""), "xyz");
    viewer.setStyle({}, { stick: { radius: 0.12 }, sphere: { scale: 0.25 } });
    viewer.setClickable({}, true, (atom) => pick(atom.index));
    slider.max = frames.length - 1;
    slide.hidden = frames.length < 2;
    picked = [];
    if (!keep) viewer.zoomTo();
    go(Math.min(frame, frames.length - 1));
  }

  function arranged(symbols, positions, cell) {
    if (!cell) return { symbols, positions, cell, source: symbols.map((_, i) => i) };
    const axes = triples(cell), inverse = inverted(axes);
    const inside = wrapped ? positions.map((p) => into(p, axes, inverse, data.pbc)) : positions;
    const found = { symbols: [], positions: [], cell, source: [] };
    const [na, nb, nc] = data.pbc.map((periodic) => (periodic ? repeats : 1));
    for (let i = 0; i < na; i++) for (let j = 0; j < nb; j++) for (let k = 0; k < nc; k++) {
      const shift = combine(axes, [i, j, k]);
      inside.forEach((p, n) => {
        found.symbols.push(symbols[n]);
        found.positions.push(p.map((value, axis) => value + shift[axis]));
        found.source.push(n);
      });
    }
    return found;
  }

  function go(next) {
    frame = Number(next);
    slider.value = frame;
    const text = mode.value ? data.modes[mode.value].name : data.labels && data.labels[frame];
    label.textContent = (text || "") + (frames.length > 1 && !mode.value ? ` (${frame + 1} / ${frames.length})` : "");
    marks.forEach((mark) => mark(mode.value ? 0 : frame));
    return Promise.resolve(viewer.setFrame(frame)).then(decorate);
  }

  function decorate() {
    viewer.removeAllShapes();
    const { cell, positions, symbols } = frames[frame];
    for (const [from, to] of cell ? edges(triples(cell)) : []) {
      viewer.addLine({ start: vector(from), end: vector(to), color: "gray" });
    }
    for (const i of picked) {
      viewer.addSphere({ center: vector(positions[i]), radius: 0.5, color: "gold", alpha: 0.6 });
    }
    said.textContent = picked.length ? measure(picked, symbols, positions) : "";
    viewer.render();
  }

  function pick(index) {
    picked = picked.includes(index) ? picked.filter((i) => i !== index) : [...picked, index].slice(-4);
    decorate();
  }

  function play() {
    if (timer) clearInterval(timer);
    timer = timer ? null : setInterval(() => go((frame + 1) % frames.length), 80);
    button.textContent = timer ? "Stop" : "Play";
  }

  const slide = add(bar, "span", "slide"), button = add(slide, "button"), slider = add(slide, "input");
  const label = add(bar, "span", "label"), choices = add(bar, "span", "choices");
  const mode = add(choices, "select");
  button.textContent = "Play";
  button.addEventListener("click", play);
  slider.type = "range";
  slider.setAttribute("aria-label", "frame");
  slider.addEventListener("input", () => go(slider.value));
  mode.hidden = !data.modes;
  mode.setAttribute("aria-label", "mode");
  (data.modes || []).forEach((each, i) => mode.append(new Option(each.name, i)));
  if (data.modes) mode.value = 0;
  mode.addEventListener("change", () => { rebuild(true); if (!timer) play(); });
  if (data.cells) {
    const most = Math.max(...data.frames.map((flat) => flat.length / 3)) * data.frames.length;
    const count = data.modes ? 0 : [3, 2].find((n) => most * n ** data.pbc.filter(Boolean).length <= MOST_ATOMS);
    if (count) toggle(choices, `${count} cells each way`, (on) => { repeats = on ? count : 1; rebuild(false); });
    toggle(choices, "wrap into the cell", (on) => { wrapped = on; rebuild(true); });
  }
  const save = add(choices, "button");
  save.textContent = "Save as XYZ";
  save.addEventListener("click", () => download("structures.xyz", frames.map(xyz).join("")));

  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => viewer.setBackgroundColor(scheme.matches ? COLOURS.dark : COLOURS.light);
  scheme.addEventListener("change", paint);
  paint();
  rebuild(false);
  const mark = (each) => { marks.push(each); each(0); };
  return { go, pick, mark, said: () => said.textContent, count: () => frames.length };
}

// A line in a figure at the frame that is shown; a click in the figure shows the nearest frame.
function link(plot, view) {
  const places = JSON.parse(plot.dataset.places), line = add(plot, "div", "cursor");
  const visible = (at) => at !== undefined && at >= 0 && at <= 1;
  view.mark((frame) => {
    line.hidden = !visible(places[frame]);
    line.style.left = `${100 * places[frame]}%`;
  });
  plot.addEventListener("click", (event) => {
    const box = plot.getBoundingClientRect(), at = (event.clientX - box.left) / box.width;
    const gaps = places.map((place) => Math.abs(place - at));
    view.go(gaps.indexOf(Math.min(...gaps)));
  });
}

function vibration(still, mode, source) {
  const vectors = triples(mode), largest = Math.max(...vectors.map((v) => Math.hypot(...v))) || 1;
  return Array.from({ length: PHASES }, (_, k) => {
    const size = (SWING / largest) * Math.sin((2 * Math.PI * k) / PHASES);
    const positions = still.positions.map((p, n) => p.map((value, axis) => value + size * vectors[source[n]][axis]));
    return { ...still, positions };
  });
}

// Distance of two atoms, angle of three, torsion of four, as they are drawn.
function measure(picked, symbols, positions) {
  const names = picked.map((i) => symbols[i] + i).join("–"), p = picked.map((i) => positions[i]);
  if (p.length === 1) return `${names}: ${p[0].map((x) => x.toFixed(3)).join(", ")} Å`;
  if (p.length === 2) return `${names}: ${Math.hypot(...minus(p[0], p[1])).toFixed(3)} Å`;
  const degrees = (x) => ((180 / Math.PI) * x).toFixed(1) + "°";
  if (p.length === 3) {
    const a = minus(p[0], p[1]), b = minus(p[2], p[1]);
    return `${names}: ${degrees(Math.atan2(Math.hypot(...cross(a, b)), dot(a, b)))}`;
  }
  const [a, b, c] = [minus(p[1], p[0]), minus(p[2], p[1]), minus(p[3], p[2])];
  const n = cross(a, b), m = cross(b, c);
  return `${names}: ${degrees(Math.atan2(Math.hypot(...b) * dot(a, m), dot(n, m)))}`;
}

function xyz({ symbols, positions, cell }) {
  const lattice = cell ? `Lattice="${cell.join(" ")}"` : "frame";
  const lines = symbols.map((s, i) => `${s} ${positions[i].map((x) => x.toFixed(4)).join(" ")}`);
  return `${symbols.length}\n${lattice}\n${lines.join("\n")}\n`;
}

function into(position, axes, inverse, pbc) {
  const shares = combine(inverse, position).map((x, axis) => (pbc[axis] ? x - Math.floor(x) : x));
  return combine(axes, shares);
}

function inverted([a, b, c]) {
  const volume = dot(a, cross(b, c)), rows = [cross(b, c), cross(c, a), cross(a, b)];
  return [0, 1, 2].map((axis) => rows.map((row) => row[axis] / volume));
}

function edges([a, b, c]) {
  const found = [], plus = (p, q) => p.map((value, axis) => value + q[axis]);
  for (const [u, v, w] of [[a, b, c], [b, c, a], [c, a, b]]) {
    for (const start of [[0, 0, 0], v, w, plus(v, w)]) found.push([start, plus(start, u)]);
  }
  return found;
}

function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

function toggle(parent, text, change) {
  const label = add(parent, "label"), box = add(label, "input");
  box.type = "checkbox";
  box.addEventListener("change", () => change(box.checked));
  label.append(" " + text);
}

function add(parent, tag, name = "") {
  const element = document.createElement(tag);
  element.className = name;
  parent.append(element);
  return element;
}

function below(element, name) {
  const found = document.createElement("div");
  found.className = name;
  element.after(found);
  return found;
}

function triples(flat) {
  return Array.from({ length: flat.length / 3 }, (_, i) => flat.slice(3 * i, 3 * i + 3));
}

function combine(rows, [x, y, z]) {
  return [0, 1, 2].map((axis) => x * rows[0][axis] + y * rows[1][axis] + z * rows[2][axis]);
}

function vector([x, y, z]) { return { x, y, z }; }
function minus(p, q) { return p.map((value, axis) => value - q[axis]); }
function dot(p, q) { return p[0] * q[0] + p[1] * q[1] + p[2] * q[2]; }
function cross(p, q) {
  return [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]];
}
