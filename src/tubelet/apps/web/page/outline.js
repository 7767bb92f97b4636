// Draw the outline of an object in one frame: polygon, box, brush and eraser, by mouse, finger, pen or keys.

import { el } from "/page/dom.js";
import { encode, runEnds, strokes } from "/page/rle.js";

const TOOLS = [
  ["polygon", "Polygon", "P", "Click corner after corner, or draw the line; the first corner closes it."],
  ["box", "Box", "X", "Draw from one corner to the opposite one."],
  ["brush", "Brush", "B", "Adds what you paint over."],
  ["eraser", "Eraser", "E", "Takes away what you paint over."],
];
const NEAR = 10; // pixels of the screen from the first corner, where a click closes a polygon
const FREEHAND = 7; // pixels of the screen between corners of a line that is drawn

/** A layer over a stage that takes strokes; `element` has its tools. `onsave(mask, whether to follow it)`, `oncancel()`. */
export class Outline {
  constructor(stage, zoom, { title, counts, box, colour, tool, extra, follows, onsave, oncancel }) {
    Object.assign(this, { stage, zoom, counts, colour, follows, onsave });
    const { width, height } = stage.result;
    this.canvas = el("canvas", { class: "layer paint", width, height, "aria-hidden": "true" });
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.surface = el("div", { class: "surface", tabIndex: 0, role: "application", "aria-label": "Drawing: arrow keys move the cross, Space sets a point or paints, Enter saves" });
    stage.sheet.append(this.canvas);
    stage.marks.after(this.surface);
    this.steps = []; // what was drawn, each { tool, points, size }
    this.open = null; // what is being drawn
    const [left, top, right, bottom] = box ?? [0, 0, width, height];
    this.cursor = [(left + right) / 2, (top + bottom) / 2];
    this.build(title, extra, oncancel);
    this.listen();
    stage.ondraw = (context, at) => this.mark(context, at);
    this.repaint();
    this.choose(tool);
  }

  build(title, extra, oncancel) {
    const buttons = TOOLS.map(([tool, text, key]) => el("button", { class: "toggle", type: "button", "aria-keyshortcuts": key, title: `${text} (${key})`, textContent: text, onclick: () => this.choose(tool) }));
    this.buttons = new Map(TOOLS.map(([tool], place) => [tool, buttons[place]]));
    const widest = Math.round(Math.min(this.canvas.width, this.canvas.height) / 3);
    this.size = el("input", { type: "range", min: 1, max: widest, value: Math.ceil(widest / 6), "aria-label": "Width of the brush in pixels", oninput: () => this.stage.draw() });
    this.sizeLabel = el("label", { class: "size" }, "Width", this.size);
    this.back = el("button", { class: "button", type: "button", textContent: "Undo stroke", onclick: () => this.undo() });
    this.hint = el("p", { class: "soft", role: "status" });
    this.element = el("form", { class: "ask", "aria-label": title, onsubmit: (event) => { event.preventDefault(); this.save(event.submitter?.value === "follow"); } },
      el("h2", { textContent: title }),
      el("div", { class: "toggles", role: "group", "aria-label": "Tools" }, ...buttons), this.sizeLabel, extra ?? null,
      el("div", { class: "answers" }, el("button", { class: "button primary", textContent: "Save" }),
        this.follows && el("button", { class: "button", value: "follow", textContent: "Save and follow", title: "Save, and let the model follow the object both ways" }), this.back,
        el("button", { class: "button", type: "button", textContent: "Cancel", onclick: oncancel })), this.hint);
  }

  listen() {
    const { surface } = this;
    surface.addEventListener("pointerdown", (event) => this.down(event));
    surface.addEventListener("pointermove", (event) => this.move(event));
    surface.addEventListener("pointerup", (event) => this.up(event));
    surface.addEventListener("click", (event) => event.stopPropagation()); // it chooses no object
    surface.addEventListener("contextmenu", (event) => event.preventDefault());
    this.zoom.drawing = true;
    this.zoom.onpinch = () => this.drop();
  }

  close() {
    this.zoom.drawing = false;
    this.zoom.onpinch = null;
    this.stage.ondraw = null;
    this.canvas.remove();
    this.surface.remove();
    this.element.remove();
  }

  choose(tool) {
    this.finish();
    this.tool = tool;
    for (const [name, button] of this.buttons) button.setAttribute("aria-pressed", name === tool);
    this.sizeLabel.hidden = tool === "polygon" || tool === "box";
    this.hint.textContent = TOOLS.find(([name]) => name === tool)[3];
    this.stage.draw();
  }

  get brushes() {
    return this.tool === "brush" || this.tool === "eraser";
  }

  /** Pixels of the screen for one of the video. */
  get scale() {
    return this.canvas.getBoundingClientRect().width / this.canvas.width;
  }

  down(event) {
    if (event.button !== 0 || this.zoom.pointers.size) return;
    this.surface.setPointerCapture(event.pointerId);
    this.pressed = true;
    this.point(this.stage.pixel(event));
  }

  move(event) {
    this.cursor = this.stage.pixel(event);
    if (this.pressed && this.open) this.go(this.cursor);
    this.stage.draw();
  }

  up() {
    if (this.pressed && this.open && this.tool !== "polygon") this.finish();
    this.pressed = false;
  }

  /** The pointer is set at a point. */
  point(at) {
    this.cursor = at;
    const { open, tool } = this;
    if (tool === "polygon" && open) {
      const [x, y] = open.points[0];
      if (open.points.length > 2 && Math.hypot(at[0] - x, at[1] - y) * this.scale < NEAR) this.finish();
      else open.points.push(at);
    } else {
      this.open = { tool, points: [at], size: this.size.valueAsNumber };
      if (this.brushes) this.paint(this.open);
    }
    this.draw();
  }

  /** The pointer is drawn on to a point. */
  go(at) {
    const { points, tool } = this.open, [x, y] = points.at(-1);
    if (tool === "box") points[1] = at;
    else if (tool !== "polygon" || Math.hypot(at[0] - x, at[1] - y) * this.scale > FREEHAND) points.push(at);
    if (this.brushes) this.paint({ ...this.open, points: points.slice(-2) });
  }

  /** What is being drawn is done. */
  finish() {
    const { open } = this;
    if (!open) return;
    this.open = null;
    if (open.tool === "box" && open.points.length < 2) return;
    this.steps.push(open.tool === "box" ? { tool: "polygon", points: corners(open.points) } : open);
    this.repaint();
  }

  /** What is being drawn is forgotten: a second finger came. */
  drop() {
    if (this.open?.tool === "polygon") this.open.points.pop();
    if (this.open?.tool !== "polygon" || !this.open.points.length) this.open = null;
    this.pressed = false;
    this.repaint();
  }

  undo() {
    if (this.open) this.drop();
    else this.steps.pop();
    this.repaint();
  }

  repaint() {
    const { context, canvas } = this;
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = context.strokeStyle = this.colour;
    if (this.counts) {
      const { first, tops, bottoms } = strokes(runEnds(this.counts), canvas.height, canvas.width);
      for (let x = 0; x < canvas.width; x++) for (let k = first[x]; k < first[x + 1]; k++) context.fillRect(x, tops[k], 1, bottoms[k] - tops[k]);
    }
    this.steps.forEach((step) => this.paint(step));
    this.draw();
  }

  draw() {
    this.back.disabled = !this.steps.length && !this.open;
    this.stage.draw();
  }

  paint({ tool, points, size }) {
    const { context, canvas } = this;
    context.beginPath();
    points.forEach(([x, y], place) => (place ? context.lineTo(x, y) : context.moveTo(x, y)));
    if (tool === "polygon") { // a new outline: what was there before goes
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.fill("evenodd");
      return;
    }
    context.globalCompositeOperation = tool === "eraser" ? "destination-out" : "source-over";
    context.lineWidth = size;
    context.lineCap = context.lineJoin = "round";
    context.lineTo(points.at(-1)[0] + 0.01, points.at(-1)[1]); // a line of no length is not drawn
    context.stroke();
    context.globalCompositeOperation = "source-over";
  }

  /** Lines, corners and the cross over the picture. */
  mark(context, at) {
    const points = this.open && (this.tool === "box" ? corners(this.open.points) : this.tool === "polygon" ? this.open.points : null);
    if (points?.length) {
      const line = [...points, this.tool === "box" ? points[0] : this.cursor];
      context.beginPath();
      line.forEach((point, place) => context[place ? "lineTo" : "moveTo"](...at(...point)));
      context.fillStyle = `${this.colour}55`;
      context.fill();
      twice(context, () => { context.beginPath(); line.forEach((point, place) => context[place ? "lineTo" : "moveTo"](...at(...point))); });
      for (const point of this.tool === "polygon" ? points : []) twice(context, () => { context.beginPath(); context.arc(...at(...point), 3.5, 0, 7); });
    }
    const [x, y] = at(...this.cursor);
    const radius = this.brushes ? (this.size.valueAsNumber * this.scale) / 2 : 0;
    twice(context, () => {
      context.beginPath();
      if (radius) context.arc(x, y, radius, 0, 7);
      else for (const [right, down] of [[9, 0], [0, 9]]) { context.moveTo(x - right, y - down); context.lineTo(x + right, y + down); }
    });
  }

  /** The mask as the server takes it; null if nothing was drawn. */
  mask() {
    const { width, height } = this.canvas, size = [height, width];
    const last = this.open ?? this.steps.at(-1);
    if (!last) return null;
    if (last.tool === "polygon") return { size, polygon: last.points.map((point) => point.map((side) => Math.round(side * 100) / 100)) };
    return { size, counts: encode(runsOf(this.context.getImageData(0, 0, width, height))) };
  }

  save(follows = false) {
    if (this.brushes || this.tool === "box") this.finish();
    this.onsave(this.mask(), follows);
  }

  key(event) {
    const { key, shiftKey } = event, step = shiftKey ? 10 : 1, { width, height } = this.canvas;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const tool = TOOLS.find(([, , letter]) => letter.toLowerCase() === key.toLowerCase());
    if (moves[key]) {
      const within = (value, side) => Math.min(Math.max(value, 0), side);
      this.cursor = [within(this.cursor[0] + moves[key][0], width), within(this.cursor[1] + moves[key][1], height)];
      if (this.open?.tool === "box") this.go(this.cursor);
      this.zoom.reveal(this.cursor);
    } else if (key === " ") {
      if (this.open?.tool === "box") this.finish();
      else this.point(this.cursor);
      if (this.brushes) this.finish();
    } else if (key === "[" || key === "]") {
      this.size.valueAsNumber += key === "]" ? 2 : -2;
    } else if (key === "Enter") {
      this.save();
    } else if (tool) {
      this.choose(tool[0]);
    } else {
      return this.zoom.key(event);
    }
    this.stage.draw();
    return true;
  }
}

/** A line that is seen over any picture. */
function twice(context, path) {
  for (const [colour, width] of [["#000", 3.5], ["#fff", 1.5]]) {
    path();
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }
}

function corners([[x1, y1], [x2, y2] = [x1, y1]]) {
  return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]];
}

/** Runs of an image's pixels, column by column: clear first, then inked, in turn. */
function runsOf({ width, height, data }) {
  const runs = [];
  let inked = false, run = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      if (data[(y * width + x) * 4 + 3] > 127 !== inked) {
        runs.push(run);
        run = 0;
        inked = !inked;
      }
      run++;
    }
  }
  runs.push(run);
  return runs;
}
