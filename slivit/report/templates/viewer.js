"use strict";
// The viewer of the report: scrolls through the slices of a scan, lays the heat map over them and
// changes window and level. The page holds a block of JSON for each scan (ScanStrips), and the
// controls (viewer.html.j2); this script only connects them. Nothing is loaded from elsewhere.

const NOTCH = 40;     // pixels of scrolling that make a step; a wheel's notch is more
const PAUSE = 400;    // milliseconds without the wheel, after which the page may scroll again
const RANGE = 255;    // of the grey values of the pictures
const SWIPE = 6;      // pixels of a swipe that make a step, at least

function openViewer(box) {
  const scan = JSON.parse(document.getElementById(box.dataset.scan).textContent);
  const slices = scan.views.flatMap(
    view => view.numbers.map((number, place) => ({ view, number, place })));
  const canvas = box.querySelector("canvas");
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const control = name => box.querySelector("input." + name);
  const [slider, heat, width, level] = ["slice", "heat", "window", "level"].map(control);
  const pictures = new Map();  // of the strips, while the viewer is near the window
  let at = scan.start;
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

  function draw() {
    if (!near) return;
    const { view, place } = slices[at];
    const strip = Math.floor(place / view.per_strip);
    const row = place % view.per_strip;
    const slice = picture(view.slices[strip]);
    const colours = view.heats.length ? picture(view.heats[strip]) : null;
    if (!slice.complete || (colours && !colours.complete)) return;  // comes back when they are
    // As many pixels as the slice has, more where they are not square.
    canvas.width = Math.round(Math.max(view.width, view.height * view.ratio));
    canvas.height = Math.round(canvas.width / view.ratio);
    const whole = [0, 0, canvas.width, canvas.height];
    pen.drawImage(slice, 0, row * view.pitch, view.width, view.height, ...whole);
    applyWindow(whole);
    if (colours) {
      const [across, down] = [view.heat_width, view.heat_height];
      pen.globalAlpha = heat.valueAsNumber / 100;
      pen.drawImage(colours, 0, row * down, across, down, ...whole);
      pen.globalAlpha = 1;
    }
  }

  function applyWindow(whole) {
    const low = level.valueAsNumber - width.valueAsNumber / 2;
    const scale = RANGE / width.valueAsNumber;
    if (low === 0 && scale === 1) return;
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
    if (slider) {
      slider.value = at;
      slider.ariaValueText = describe();
      box.querySelector(".where").textContent = describe();
    }
    draw();
  }

  function update() {
    for (const input of [heat, width, level].filter(Boolean)) {
      const unit = input === heat ? " %" : "";
      input.previousElementSibling.textContent = Math.round(input.valueAsNumber) + unit;
      input.ariaValueText = input.previousElementSibling.textContent;
    }
    draw();
  }

  function reset() {
    width.value = width.defaultValue;
    level.value = level.defaultValue;
    update();
  }

  // Wheel

  let scrolled = 0;
  let latest = -PAUSE;

  function onWheel(event) {
    if (event.ctrlKey || slices.length < 2) return;  // with Ctrl the page is magnified
    // Past the first and the last slice the page scrolls on, but not in the same movement.
    const ended = at === (event.deltaY > 0 ? slices.length - 1 : 0);
    if (ended && event.timeStamp - latest > PAUSE) return;
    event.preventDefault();
    latest = event.timeStamp;
    scrolled += event.deltaMode ? NOTCH * event.deltaY : event.deltaY;
    if (Math.abs(scrolled) < NOTCH) return;
    show(at + Math.sign(scrolled));
    scrolled = 0;
  }

  // Mouse and touch

  let start = null;  // of a drag on the slice

  function onPress(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    canvas.setPointerCapture(event.pointerId);
    start = { x: event.clientX, y: event.clientY, at,
              width: width.valueAsNumber, level: level.valueAsNumber };
  }

  function onDrag(event) {
    if (!start || !canvas.hasPointerCapture(event.pointerId)) return;
    const right = event.clientX - start.x;
    const down = event.clientY - start.y;
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
    const track = event.currentTarget;
    if (event.type === "pointerdown") track.setPointerCapture(event.pointerId);
    if (!track.hasPointerCapture(event.pointerId)) return;
    const box = track.getBoundingClientRect();
    show(Math.floor((event.clientX - box.left) / box.width * slices.length));
  }

  // Keys; those of the sliders are the browser's own

  function onKey(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "r") reset();
    if (event.key === "h" && heat) {
      heat.value = heat.valueAsNumber ? 0 : heat.defaultValue;
      update();
    }
  }

  canvas.addEventListener("wheel", onWheel, { passive: false });
  canvas.addEventListener("pointerdown", onPress);
  canvas.addEventListener("pointermove", onDrag);
  canvas.addEventListener("dblclick", reset);
  canvas.addEventListener("click", () => (slider || width).focus({ preventScroll: true }));
  if (slider) {
    const track = slider.parentElement;
    track.addEventListener("wheel", onWheel, { passive: false });
    track.addEventListener("pointerdown", seek);
    track.addEventListener("pointermove", seek);
    track.addEventListener("click", () => slider.focus({ preventScroll: true }));
    slider.addEventListener("input", () => show(slider.valueAsNumber));
  }
  for (const input of [heat, width, level].filter(Boolean)) input.addEventListener("input", update);
  box.querySelector("button").addEventListener("click", reset);
  box.addEventListener("keydown", onKey);

  // Strips are decoded only while they are needed
  new IntersectionObserver(([entry]) => {
    near = entry.isIntersecting;
    if (near) draw(); else pictures.clear();
  }, { rootMargin: "50%" }).observe(box);

  box.closest("figure").classList.add("scrolls");
  box.hidden = false;
  update();
  show(at);
}

document.querySelectorAll(".viewer").forEach(openViewer);
document.querySelectorAll(".help").forEach(text => { text.hidden = false; });
