// Fills each .view with a 3Dmol viewer; several frames get a slider and a play button.
for (const [index, data] of VIEWS.entries()) {
  const element = document.getElementById("view" + index);
  try {
    show(element, data);
    element.dataset.ready = "true";
  } catch (error) {
    element.textContent = "The 3D view needs WebGL, which this browser does not offer: " + error;
  }
}

function show(element, data) {
  const viewer = $3Dmol.createViewer(element, {});
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => viewer.setBackgroundColor(dark.matches ? "#16181b" : "#ffffff");
  dark.addEventListener("change", paint);
  paint();
  viewer.addModelsAsFrames(data.xyz, "xyz");
  viewer.setStyle({}, { stick: { radius: 0.12 }, sphere: { scale: 0.25 } });
  if (data.cell) {
    for (const [from, to] of edges(data.cell)) {
      viewer.addLine({ start: vector(from), end: vector(to), color: "gray" });
    }
  }
  viewer.zoomTo();
  viewer.render();
  if (data.frames > 1) addControls(element, viewer, data.frames);
}

function vector([x, y, z]) {
  return { x, y, z };
}

function edges([a, b, c]) {
  const add = (p, q) => p.map((value, axis) => value + q[axis]);
  const zero = [0, 0, 0];
  const result = [];
  for (const [u, v, w] of [[a, b, c], [b, c, a], [c, a, b]]) {
    for (const start of [zero, v, w, add(v, w)]) result.push([start, add(start, u)]);
  }
  return result;
}

function addControls(element, viewer, count) {
  const controls = document.createElement("div");
  const button = document.createElement("button");
  const slider = document.createElement("input");
  const label = document.createElement("span");
  let timer = null;
  controls.className = "controls";
  button.textContent = "Play";
  slider.type = "range";
  slider.max = count - 1;
  slider.value = 0;
  slider.setAttribute("aria-label", "frame");
  function go(frame) {
    slider.value = frame;
    label.textContent = Number(frame) + 1 + " / " + count;
    viewer.setFrame(Number(frame)).then(() => viewer.render());
  }
  slider.addEventListener("input", () => go(slider.value));
  button.addEventListener("click", () => {
    if (timer) clearInterval(timer);
    timer = timer ? null : setInterval(() => go((Number(slider.value) + 1) % count), 80);
    button.textContent = timer ? "Stop" : "Play";
  });
  controls.append(button, slider, label);
  element.after(controls);
  go(0);
}
