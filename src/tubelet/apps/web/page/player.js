// A video with what the model found drawn over it, frame by frame.

import { el } from "/page/dom.js";
import { MaskCanvas, objectAt, visible } from "/page/masks.js";

const FONT = 13; // pixels of a label

/** One picture with masks and marks; the picture is a video, or a canvas that shows another stage's video. */
export class Stage {
  constructor(picture, result, label) {
    this.result = result;
    this.picture = picture;
    this.masks = new MaskCanvas(el("canvas", { class: "layer", "aria-hidden": "true" }));
    this.marks = el("canvas", { class: "layer", "aria-hidden": "true" });
    this.sheet = el("div", { class: "sheet" }, picture, this.masks.canvas);
    this.element = el("div", { class: "stage", role: "group", "aria-label": label }, this.sheet, this.marks);
    this.element.style.setProperty("--ratio", result.width / result.height);
    this.view = { scale: 1, x: 0, y: 0 }; // how the sheet is enlarged, and where its corner is
    this.options = { masks: true, boxes: false, labels: true, threshold: 0.5, alone: null, chosen: null, hidden: null };
    this.frame = 0;
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.element);
    this.element.addEventListener("click", (event) => this.picked(event));
    this.onpick = null; // called with a track or null, and the pixel
    this.ondraw = null; // called with the context of the marks, and where a pixel is on it
  }

  show(frame) {
    this.frame = frame;
    this.draw();
  }

  set(options) {
    Object.assign(this.options, options);
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!width) return;
    const ratio = window.devicePixelRatio || 1;
    const { scale, x, y } = this.view;
    this.sheet.style.transform = scale === 1 ? "" : `translate(${x}px, ${y}px) scale(${scale})`;
    this.masks.paint(this.result, this.frame, this.options, width * ratio * scale);
    this.drawMarks(width, height, ratio);
  }

  drawMarks(width, height, ratio) {
    if (this.marks.width !== Math.round(width * ratio) || this.marks.height !== Math.round(height * ratio)) {
      this.marks.width = Math.round(width * ratio);
      this.marks.height = Math.round(height * ratio);
    }
    const context = this.marks.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const scale = (width / this.result.width) * this.view.scale;
    const at = (x, y) => [x * scale + this.view.x, y * scale + this.view.y];
    const drawn = visible(this.result, this.frame, this.options);
    const chosen = drawn.find((track) => track.id === this.options.chosen);
    if (this.options.boxes) drawn.forEach((track) => drawBox(context, track.at(this.frame).box, at, track.colour, 2));
    if (chosen) drawChoice(context, chosen.at(this.frame).box, at);
    if (this.options.labels) drawLabels(context, drawn, this.frame, at, width, height);
    this.ondraw?.(context, at);
  }

  /** The pixel of the video under a pointer, with its fraction. */
  pixel({ clientX, clientY }) {
    const place = this.sheet.getBoundingClientRect();
    return [((clientX - place.left) / place.width) * this.result.width, ((clientY - place.top) / place.height) * this.result.height];
  }

  picked(event) {
    const [x, y] = this.pixel(event).map(Math.floor);
    // a click beside the followed object lets go of it; on another one changes over
    this.onpick?.(objectAt(this.result, this.frame, { ...this.options, alone: null }, x, y), x, y);
  }

  close() {
    this.observer.disconnect();
  }
}

function drawBox(context, [x1, y1, x2, y2], at, colour, width, dashes = []) {
  const [left, top] = at(x1, y1), [right, bottom] = at(x2, y2);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.setLineDash(dashes);
  context.strokeRect(left, top, right - left, bottom - top);
  context.setLineDash([]);
}

/** A frame that is seen over any picture. */
function drawChoice(context, box, at) {
  drawBox(context, box, at, "#000", 3);
  drawBox(context, box, at, "#fff", 1.5, [6, 4]);
}

function drawLabels(context, drawn, frame, at, width, height) {
  context.font = `600 ${FONT}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const taken = [], tall = FONT + 8;
  for (const track of drawn) {
    const box = track.at(frame).box, [x1, y1] = at(box[0], box[1]), [x2, y2] = at(box[2], box[3]);
    if (x2 < 0 || y2 < 0 || x1 > width || y1 > height) continue; // beside an enlarged picture
    const text = `${track.name} ${track.id}`;
    const wide = context.measureText(text).width + 12;
    const left = Math.min(Math.max(x1, 0), Math.max(width - wide, 0));
    const tops = [y1 - tall, y1, y2, y1 + tall, y1 + 2 * tall];
    const places = tops.map((top) => Math.min(Math.max(top, 0), height - tall));
    const free = (top) => taken.every((other) => left >= other[0] + other[2] || other[0] >= left + wide || top >= other[1] + tall || other[1] >= top + tall);
    const top = places.find(free) ?? places[0];
    taken.push([left, top, wide]);
    context.fillStyle = track.colour;
    context.beginPath();
    context.roundRect(left, top, wide, tall, 4);
    context.fill();
    context.fillStyle = isLight(track.colour) ? "#000" : "#fff";
    context.fillText(text, left + 6, top + tall / 2 + 0.5);
  }
}

/** Whether black stands out more from a colour than white (contrast ratio of WCAG 2). */
export function isLight(colour) {
  const rgb = parseInt(colour.slice(1), 16);
  const [red, green, blue] = [rgb >> 16, (rgb >> 8) & 255, rgb & 255].map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179;
}

/** Plays a film and says, for each picture that is really on the screen, which frame it is. */
export class Player {
  constructor(address, result) {
    this.result = result;
    this.frame = 0;
    this.video = el("video", { src: address, muted: true, playsInline: true, preload: "auto", disablePictureInPicture: true, "aria-label": "video", tabIndex: -1 });
    this.listeners = [];
    this.wanted = null; // a frame that is sought
    this.onstate = null;
    for (const name of ["play", "pause", "ended"]) this.video.addEventListener(name, () => this.onstate?.());
    this.video.addEventListener("seeked", () => this.arrived());
    this.video.addEventListener("loadeddata", () => this.arrived());
    this.watch();
  }

  get playing() {
    return !this.video.paused && !this.video.ended;
  }

  /** Where the user is: a frame on its way counts as reached. */
  get target() {
    return this.wanted ?? this.frame;
  }

  toggle() {
    if (this.playing) this.video.pause();
    else this.video.play().catch(() => {});
  }

  seek(frame) {
    const goal = Math.min(Math.max(Math.round(frame), 0), this.result.length - 1);
    const busy = this.wanted !== null;
    this.wanted = goal;
    // before the film has come it cannot be sought in; its arrival looks at what is wanted
    if (!busy && this.video.readyState > 0) this.video.currentTime = this.result.timeWithin(goal);
  }

  step(frames) {
    this.video.pause();
    this.seek(this.target + frames);
  }

  onframe(listener) {
    this.listeners.push(listener);
    listener(this.frame);
  }

  close() {
    this.closed = true;
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
  }

  arrived() {
    const here = this.result.frameAt(this.video.currentTime);
    if (this.wanted !== null && this.wanted !== here) {
      this.video.currentTime = this.result.timeWithin(this.wanted); // sought again meanwhile
      return;
    }
    this.wanted = null;
    this.tell(here);
  }

  watch() {
    if (this.closed) return;
    if ("requestVideoFrameCallback" in this.video) {
      this.video.requestVideoFrameCallback((_, facts) => {
        // a seek tells by itself when it has arrived; until then this is a picture on the way
        if (this.wanted === null) this.tell(this.result.frameAt(facts.mediaTime));
        this.watch();
      });
    } else {
      requestAnimationFrame(() => {
        if (this.playing) this.tell(this.result.frameAt(this.video.currentTime));
        this.watch();
      });
    }
  }

  tell(frame) {
    this.frame = frame;
    for (const listener of this.listeners) listener(frame);
  }
}
