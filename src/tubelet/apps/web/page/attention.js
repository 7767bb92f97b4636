// The third tab: pick a frame and a point, and see where the model looks in other frames.

import * as api from "/page/api.js";
import { clock, el, notify } from "/page/dom.js";
import { Player, Stage } from "/page/player.js";
import { Cancelled, run } from "/page/run.js";

const WIDTH = 480; // of a picture, in pixels

export async function attention(host, { about, film, signal }) {
  const models = about.models.filter((model) => model.attends);
  if (!models.length) {
    const names = about.models.map((model) => model.name).join(", ");
    host.replaceChildren(el("section", { class: "card" },
      el("h1", { textContent: "Attention" }),
      el("p", { class: "soft", id: "no-attention", textContent: `This model (${names}) has no attention modules to show.` })));
    return;
  }
  try {
    const { result } = await run(host, { video: film.id, model: models[0].name }, film.name, signal);
    host.replaceChildren(new View(film, models, result, signal).element);
  } catch (error) {
    if (!(error instanceof Cancelled)) host.replaceChildren(el("p", { class: "centre", role: "alert", textContent: error.message }));
  }
}

class View {
  constructor(film, models, result, signal) {
    this.film = film;
    this.result = result;
    this.point = [Math.floor(result.width / 2), Math.floor(result.height / 2)];
    this.player = new Player(api.filmAddress(film.id), result);
    this.pictures = new Pictures(api.filmAddress(film.id), result);
    this.stage = new Stage(this.player.video, result, "Click a point");
    this.stage.set({ masks: false, labels: false });
    this.stage.element.classList.add("aim");
    this.cross = el("div", { class: "cross", "aria-hidden": "true" });
    this.stage.element.append(this.cross);
    this.range = el("input", { type: "range", class: "scrub", min: 0, max: result.length - 1, value: 0, "aria-label": "Frame", oninput: () => this.player.seek(this.range.valueAsNumber) });
    this.time = el("span", { class: "time" });
    const place = (name, limit) => el("input", { type: "number", min: 0, max: limit - 1, title: name, onchange: () => this.typed(), onkeydown: (event) => { if (event.key === "Enter") this.typed().look(); } });
    this.inputs = [place("x, pixels", result.width), place("y, pixels", result.height)];
    this.model = el("select", { "aria-label": "Model", hidden: models.length < 2, onchange: () => this.turn && this.look() }, ...models.map((model) => el("option", { value: model.name, textContent: model.name })));
    this.button = el("button", { class: "button primary", textContent: "Look", onclick: () => this.look() });
    this.turn = 0;
    this.maps = el("div", { class: "maps", role: "status" });
    this.element = el("div", { class: "watch" },
      el("div", { class: "title" }, el("h1", { textContent: film.name }), el("p", { class: "soft", textContent: "Pick a frame and a point: where does the model look in other frames?" })),
      this.stage.element,
      el("div", { class: "transport" }, this.range, this.time, this.model, ...["x", "y"].map((axis, place) => el("label", { class: "axis" }, axis, this.inputs[place])), this.button), this.maps);
    this.stage.onpick = (_, x, y) => { this.aim(x, y); this.look(); };
    this.player.onframe((frame) => this.show(frame));
    this.aim(...this.point);
    addEventListener("keydown", (event) => this.key(event), { signal });
    signal.addEventListener("abort", () => { this.player.close(); this.pictures.close(); this.stage.close(); });
  }

  show(frame) {
    this.range.value = frame;
    this.range.style.setProperty("--share", `${(frame / Math.max(this.range.max, 1)) * 100}%`);
    this.time.textContent = `${clock(this.result.times[frame])} · frame ${frame}`;
  }

  aim(x, y) {
    this.point = [Math.min(Math.max(x, 0), this.result.width - 1), Math.min(Math.max(y, 0), this.result.height - 1)];
    this.inputs.forEach((input, axis) => { input.value = this.point[axis]; });
    this.cross.style.left = `${((this.point[0] + 0.5) / this.result.width) * 100}%`;
    this.cross.style.top = `${((this.point[1] + 0.5) / this.result.height) * 100}%`;
  }

  typed() {
    this.aim(...this.inputs.map((input) => Math.floor(input.valueAsNumber) || 0));
    return this;
  }

  /** Only the newest question is answered: an earlier one stops painting. */
  async look() {
    const [x, y] = this.point, frame = this.player.target, turn = ++this.turn;
    this.maps.replaceChildren(el("p", { class: "soft", textContent: `Reading the video up to frame ${frame} …` }));
    try {
      const { maps } = await api.attention(this.film.id, { model: this.model.value, frame, x, y });
      if (turn !== this.turn) return;
      const told = maps.length ? `From the ring, at (${x}, ${y}) of frame ${frame}, the model looks here:` : "No attention module looks from this point.";
      const canvases = maps.map((map) => this.canvas(map));
      const figures = maps.map((map, place) => el("figure", {}, canvases[place], el("figcaption", { textContent: `frame ${map.frame} · ${map.name.replace(" %", "\u00a0%")}` })));
      this.maps.replaceChildren(el("p", { class: "soft", textContent: told }), ...figures);
      for (const [place, map] of maps.entries()) {
        if (turn === this.turn) await this.pictures.paint(canvases[place], map, [x, y]);
      }
    } catch (error) {
      if (turn !== this.turn) return;
      this.maps.replaceChildren();
      notify(error.message);
    }
  }

  canvas(map) {
    const height = Math.round((WIDTH * this.result.height) / this.result.width);
    return el("canvas", { width: WIDTH, height, role: "img", "aria-label": `${map.name}, frame ${map.frame}: most at ${peak(map)}` });
  }

  key(event) {
    if (event.target.closest?.("input[type=number], select, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = { ArrowLeft: () => this.player.step(event.shiftKey ? -10 : -1), ArrowRight: () => this.player.step(event.shiftKey ? 10 : 1) }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
}

/** Single pictures of a film, and heat over them. */
class Pictures {
  constructor(address, result) {
    this.result = result;
    this.video = el("video", { src: address, muted: true, preload: "auto" });
    this.last = Promise.resolve();
  }

  close() {
    this.video.removeAttribute("src");
    this.video.load();
  }

  /** One after another: they share the film. */
  paint(canvas, map, point) {
    this.last = this.last.then(() => this.picture(canvas, map, point));
    return this.last;
  }

  async picture(canvas, map, [x, y]) {
    await this.seek(map.frame);
    const context = canvas.getContext("2d");
    context.filter = "grayscale(1) brightness(.7)";
    context.drawImage(this.video, 0, 0, canvas.width, canvas.height);
    context.filter = "none";
    context.drawImage(heat(map, canvas.width, canvas.height), 0, 0);
    const scale = canvas.width / this.result.width;
    for (const [colour, line] of [["#000", 6], ["#fff", 3]]) {
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.beginPath();
      context.arc((x + 0.5) * scale, (y + 0.5) * scale, 11, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  seek(frame) {
    return new Promise((resolve) => {
      const done = () => { clearTimeout(timer); resolve(); };
      const timer = setTimeout(done, 3000); // a picture that does not come must not hold up the others
      this.video.addEventListener("seeked", done, { once: true });
      this.video.currentTime = this.result.timeWithin(frame);
    });
  }
}

/** From transparent over violet and orange to pale yellow: even steps of lightness, so that it reads without colour. The
 *  picture shows through the largest weight too: attention that is nearly even everywhere would hide it. */
const RAMP = [[60, 20, 110, 0], [150, 40, 130, 95], [230, 90, 70, 140], [255, 170, 50, 170], [255, 245, 190, 190]];

const COLOURS = Array.from({ length: 256 }, (_, level) => {
  const at = (level / 255) * (RAMP.length - 1), low = Math.min(Math.floor(at), RAMP.length - 2);
  return RAMP[low].map((value, channel) => value + (RAMP[low + 1][channel] - value) * (at - low));
});

/** The map at the size of the picture. It is enlarged before it is coloured: colours in between would belong to no level. */
function heat(map, width, height) {
  const canvas = el("canvas", { width, height }), context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(grey(map), 0, 0, width, height);
  const image = context.getImageData(0, 0, width, height);
  for (let at = 0; at < image.data.length; at += 4) image.data.set(COLOURS[image.data[at]], at);
  context.putImageData(image, 0, 0);
  return canvas;
}

function grey(map) {
  const [height, width] = map.size, image = new ImageData(width, height);
  levels(map).forEach((level, place) => image.data.set([level, level, level, 255], place * 4));
  const canvas = el("canvas", { width, height });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

const levels = ({ values }) => Uint8Array.from(atob(values), (character) => character.charCodeAt(0));

/** Where a map is largest, in words. */
function peak(map) {
  const [height, width] = map.size, all = levels(map), place = all.indexOf(255);
  const across = (place % width) / width, down = Math.floor(place / width) / height;
  return place < 0 ? "no place" : `${Math.round(across * 100)} % from the left, ${Math.round(down * 100)} % from the top`;
}
