// The second tab: two models, or two ways of reading, side by side over the same pictures.

import * as api from "/page/api.js";
import { clock, count, duration, el, icon, notify } from "/page/dom.js";
import { Player, Stage } from "/page/player.js";
import { Cancelled, run } from "/page/run.js";

const WINDOWS = [[1, 1], [2, 1], [4, 2], [8, 4], [16, 8], [32, 16]];

const named = ([length, stride]) => (length === 1 ? "Frame by frame" : `${length} frames at a time, every ${stride}`);

export async function compare(host, context) {
  const { about, film, signal } = context;
  const sides = [new Side(0, about, film, signal), new Side(1, about, film, signal)];
  const show = new Show(film, sides, signal);
  sides.forEach((side) => { side.onready = () => show.renew(); });
  host.replaceChildren(el("div", { class: "compare" },
    el("div", { class: "title" }, el("h1", { textContent: film.name }), el("p", { class: "soft", textContent: "Two models or two windows over the same video." })),
    el("div", { class: "pair" }, ...sides.map((side) => side.element)), show.element));
  sides[0].go();
}

/** Half of the view: what to run, its progress, and its picture. */
class Side {
  constructor(place, about, film, signal) {
    this.about = about;
    this.film = film;
    this.signal = signal;
    this.result = null;
    const models = about.models.map((model) => el("option", { value: model.name, textContent: model.name }));
    this.model = el("select", {}, ...models);
    this.model.value = about.models[Math.min(place, about.models.length - 1)].name;
    this.window = el("select", {},
      el("option", { value: "", textContent: "As the model reads" }),
      ...WINDOWS.map((window) => el("option", { value: window.join("/"), textContent: named(window) })));
    if (place && about.models.length === 1) this.window.value = "8/4"; // the same twice would say nothing
    this.button = el("button", { class: "button", textContent: "Run", onclick: () => this.go() });
    this.place = el("div", { class: "place" }, el("p", { class: "centre soft", textContent: "Choose, and run." }));
    this.facts = el("p", { class: "small" });
    this.element = el("section", { class: "side", "aria-label": place ? "Right side" : "Left side" },
      el("div", { class: "choice" },
        el("label", {}, "Model", this.model), el("label", {}, "Window", this.window), this.button),
      this.place, this.facts);
    this.element.dataset.side = place;
  }

  async go() {
    const [length, stride] = this.window.value ? this.window.value.split("/").map(Number) : [null, null];
    this.button.disabled = true;
    this.result = null;
    this.facts.textContent = "";
    this.onready?.();
    try {
      const { job, result } = await run(this.place, { video: this.film.id, model: this.model.value, length, stride }, this.film.name, this.signal, "h2");
      this.result = result;
      const pieces = result.tracks.filter((track) => track.score >= 0.5).reduce((sum, track) => sum + track.spans().length, 0);
      const objects = result.tracks.filter((track) => track.score >= 0.5).length;
      this.facts.textContent = `${count(objects, "object")} in ${count(pieces, "piece")} · ${duration(job.seconds)}`;
      this.onready?.();
    } catch (error) {
      if (!(error instanceof Cancelled)) notify(error.message);
      this.place.replaceChildren(el("p", { class: "centre soft", textContent: error instanceof Cancelled ? "Cancelled." : error.message }));
    } finally {
      this.button.disabled = false;
    }
  }
}

/** One video that plays once; the second picture is a copy of it, so that both always show the same frame. */
class Show {
  constructor(film, sides, signal) {
    this.film = film;
    this.sides = sides;
    this.play = el("button", { class: "play", "aria-label": "Play", onclick: () => this.player?.toggle() }, icon("play"));
    this.range = el("input", { type: "range", class: "scrub", min: 0, value: 0, "aria-label": "Frame", oninput: () => this.player?.seek(this.range.valueAsNumber) });
    this.time = el("span", { class: "time" });
    this.element = el("div", { class: "transport", hidden: true }, this.play, this.range, this.time);
    addEventListener("keydown", (event) => this.key(event), { signal });
    signal.addEventListener("abort", () => this.clear());
  }

  clear() {
    this.stages?.forEach((stage) => stage?.close());
    this.player?.close();
    this.player = null;
  }

  renew() {
    const frame = this.player?.frame ?? 0;
    this.clear();
    const ready = this.sides.filter((side) => side.result);
    this.element.hidden = ready.length === 0;
    if (!ready.length) return;
    const player = new Player(api.filmAddress(this.film.id), ready[0].result);
    this.player = player;
    this.range.max = ready[0].result.length - 1;
    this.stages = ready.map((side, place) => {
      const { width, height } = side.result;
      const picture = place === 0 ? player.video : el("canvas", { class: "mirror", width, height });
      const stage = new Stage(picture, side.result, `${side.model.value}, ${side.window.selectedOptions[0].textContent}`);
      side.place.replaceChildren(stage.element);
      return stage;
    });
    player.onstate = () => this.showState();
    player.video.addEventListener("loadeddata", () => frame && player.seek(frame), { once: true });
    player.onframe((now) => this.show(now));
  }

  show(frame) {
    const [, mirror] = this.stages;
    if (mirror) {
      const { width, height } = mirror.picture;
      mirror.picture.getContext("2d").drawImage(this.player.video, 0, 0, width, height);
    }
    this.stages.forEach((stage) => stage.show(frame));
    this.range.value = frame;
    this.range.style.setProperty("--share", `${(frame / Math.max(this.range.max, 1)) * 100}%`);
    this.time.textContent = `${clock(this.player.result.times[frame])} · frame ${frame}`;
  }

  showState() {
    this.play.replaceChildren(icon(this.player.playing ? "pause" : "play"));
    this.play.setAttribute("aria-label", this.player.playing ? "Pause" : "Play");
  }

  key(event) {
    if (!this.player || event.target.closest?.("select, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target.closest?.("button, a")) return;
    const step = event.shiftKey ? 10 : 1;
    const action = { " ": () => this.player.toggle(), ArrowLeft: () => this.player.step(-step), ArrowRight: () => this.player.step(step) }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
}
