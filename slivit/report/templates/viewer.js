"use strict";
// The viewer of the report: scrolls through the slices of a scan, lays the heat map over them and
// changes window and level. The page holds the controls (viewer.html.j2) and, as a block of JSON
// for each scan, its slices (ScanStrips); this script connects them and loads nothing.

const NOTCH = 40;     // pixels of scrolling that make a step; a wheel's notch is more
const PAUSE = 400;    // milliseconds without the wheel, after which the page may scroll again
const RANGE = 255;    // of the grey values of the pictures
const SWIPE = 6;      // pixels of a swipe that make a step, at least
let pageMoved = -PAUSE;  // when the wheel last scrolled the page up or down

function openViewer(box) {
  const scan = JSON.parse(document.getElementById(box.dataset.scan).textContent);
  const slices = scan.views.flatMap(
    view => view.numbers.map((number, place) => ({ view, number, place })));
  const canvas = box.querySelector("canvas");
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const [slider, heat, width, level] = ["slice", "heat", "window", "level"].map(
    name => box.querySelector("input." + name));
  const where = box.querySelector(".where");  // none of a scan of one slice
  const settings = [heat, width, level].filter(Boolean);
  const pictures = new Map();  // of the strips, while the viewer is near the window
  let at = scan.start;
  let opacity = heat?.defaultValue;  // at which H shows the heat map again
  let near = false;

  // Drawing

  function picture(uri) {
    if (!pictures.has(uri)) {
      const strip = new Image();
      strip.onload = draw;
      strip.src = uri;
      pictures.set(uri, strip);
    }
    return pictures.get(uri);
  }

  // Cut out first and enlarged afterwards, so that no neighbour in the strip shines in at the edge.
  function cut(strip, top, across, down) {
    const piece = document.createElement("canvas");
    [piece.width, piece.height] = [across, down];
    piece.getContext("2d").drawImage(strip, 0, top, across, down, 0, 0, across, down);
    return piece;
  }

  function draw() {
    if (!near) return;
    const { view, place } = slices[at];
    const [strip, row] = [Math.floor(place / view.per_strip), place % view.per_strip];
    const slice = picture(view.slices[strip]);
    const colours = view.heats.length ? picture(view.heats[strip]) : null;
    if (!slice.complete || (colours && !colours.complete)) return;  // comes back when they are
    canvas.width = Math.round(Math.max(view.width, view.height * view.ratio));
    canvas.height = Math.round(canvas.width / view.ratio);
    const whole = [0, 0, canvas.width, canvas.height];
    pen.drawImage(cut(slice, row * view.pitch, view.width, view.height), ...whole);
    applyWindow(whole);
    if (colours) {
      const down = view.heat_height;
      pen.globalAlpha = heat.valueAsNumber / 100;
      pen.drawImage(cut(colours, row * down, view.heat_width, down), ...whole);
    }
  }

  function applyWindow(whole) {
    const low = level.valueAsNumber - width.valueAsNumber / 2;
    const scale = RANGE / width.valueAsNumber;
    const table = Uint8ClampedArray.from({ length: RANGE + 1 }, (_, grey) => (grey - low) * scale);
    const frame = pen.getImageData(...whole);
    for (let i = 0; i < frame.data.length; i++) {
      if (i % 4 < 3) frame.data[i] = table[frame.data[i]];  // every fourth is the opacity
    }
    pen.putImageData(frame, 0, 0);
  }

  // What is shown

  function describe() {
    const { view, number, place } = slices[at];
    const weight = view.weights.length ? `, weight ${view.weights[place].toFixed(3)}` : "";
    const name = `${view.name} slice ${number} of ${view.count}`.trim();
    return name[0].toUpperCase() + name.slice(1) + weight;
  }

  function show(index) {
    at = Math.min(Math.max(Math.round(index), 0), slices.length - 1);
    if (where) where.textContent = describe();
    if (slider) [slider.value, slider.ariaValueText] = [at, describe()];
    draw();
  }

  function update() {
    for (const input of settings) {
      const text = Math.round(input.valueAsNumber) + (input === heat ? " %" : "");
      input.ariaValueText = input.previousElementSibling.textContent = text;
    }
    draw();
  }

  function reset() {
    for (const input of [width, level]) input.value = input.defaultValue;
    update();
  }

  // Wheel

  let scrolled = 0;
  let moved = -PAUSE;  // when the wheel last scrolled the slices

  function onWheel(event) {
    if (event.ctrlKey || !event.deltaY || slices.length < 2) return;
    // A movement that began on the page, or begins at the last slice, is the page's.
    const ended = at === (event.deltaY > 0 ? slices.length - 1 : 0);
    const began = event.timeStamp - moved > PAUSE;
    if (event.timeStamp - pageMoved < PAUSE || (ended && began)) return;
    event.preventDefault();
    moved = event.timeStamp;
    scrolled += event.deltaMode ? NOTCH * event.deltaY : event.deltaY;
    if (Math.abs(scrolled) < NOTCH) return;
    show(at + Math.sign(scrolled));
    scrolled = 0;
  }

  // Mouse, touch and keys; those of the sliders are the browser's own

  let start = null;  // of a drag on the slice

  function onPress(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    canvas.setPointerCapture(event.pointerId);
    start = { x: event.clientX, y: event.clientY, at,
              width: width.valueAsNumber, level: level.valueAsNumber };
  }

  function onDrag(event) {
    if (!start || !canvas.hasPointerCapture(event.pointerId)) return;
    const [right, down] = [event.clientX - start.x, event.clientY - start.y];
    if (event.pointerType === "touch") {  // a finger scrolls; window and level have sliders
      const step = Math.max(SWIPE, canvas.clientWidth / slices.length);
      show(start.at + Math.trunc(right / step));
    } else {
      width.value = start.width + right;
      level.value = start.level + down / 2;
      update();
    }
  }

  function seek(event) {
    if (event.type === "pointerdown") track.setPointerCapture(event.pointerId);
    if (!track.hasPointerCapture(event.pointerId)) return;
    const box = track.getBoundingClientRect();
    show(Math.floor((event.clientX - box.left) / box.width * slices.length));
  }

  function onKey(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;  // keys of the browser
    if (event.key.toLowerCase() === "r") reset();
    if (event.key.toLowerCase() === "h" && heat) {
      if (heat.valueAsNumber) opacity = heat.value;
      heat.value = heat.valueAsNumber ? 0 : opacity;
      update();
    }
  }

  const track = slider ? slider.parentElement : canvas;
  for (const part of new Set([canvas, track])) {
    part.addEventListener("wheel", onWheel, { passive: false });
    part.addEventListener("click", () => (slider || width).focus({ preventScroll: true }));
  }
  canvas.addEventListener("pointerdown", onPress);
  canvas.addEventListener("pointermove", onDrag);
  canvas.addEventListener("dblclick", reset);
  if (slider) {
    track.addEventListener("pointerdown", seek);
    track.addEventListener("pointermove", seek);
    slider.addEventListener("input", () => show(slider.valueAsNumber));
  }
  for (const input of settings) input.addEventListener("input", update);
  box.querySelector("button").addEventListener("click", reset);
  box.addEventListener("keydown", onKey);

  // Strips are decoded only while they are needed
  new IntersectionObserver(entries => {
    near = entries.at(-1).isIntersecting;
    if (near) draw(); else pictures.clear();
  }, { rootMargin: "50%" }).observe(box);

  box.closest("figure").classList.add("scrolls");
  box.hidden = false;
  update();
  show(at);
}

document.addEventListener("wheel", event => {
  if (event.deltaY && !event.defaultPrevented) pageMoved = event.timeStamp;
}, { passive: true });
document.querySelectorAll(".viewer").forEach(openViewer);
document.querySelectorAll(".help").forEach(text => { text.hidden = false; });
