// The first tab: play, look, choose, take home.

import * as api from "/page/api.js";
import { clock, count, duration, el, icon, notify } from "/page/dom.js";
import { Player, Stage } from "/page/player.js";
import { Cancelled, run } from "/page/run.js";
import { Timeline } from "/page/timeline.js";

const FILES = [
  ["overlay.mp4", "Video with overlay", "MP4"],
  ["predictions.json", "Predictions, YouTube-VIS form", "JSON"],
  ["davis.zip", "Masks as DAVIS images", "ZIP"],
  ["tracks.csv", "Tracks, frame by frame", "CSV"],
];

export async function watch(host, { about, film, signal, home }) {
  const wish = { video: film.id, model: about.models[0].name };
  let job, result;
  try {
    ({ job, result } = await run(host, wish, film.name, signal));
  } catch (error) {
    if (!(error instanceof Cancelled)) host.replaceChildren(failure(film, error, home));
    else if (!signal.aborted) home();
    return;
  }
  host.replaceChildren(new View(film, job, result, about, signal).element);
}

function failure(film, error, home) {
  return el("section", { class: "card" },
    el("h2", { textContent: film.name }),
    el("p", { role: "alert", textContent: error.message }),
    el("button", { class: "button", textContent: "Back", onclick: home }));
}

class View {
  constructor(film, job, result, about, signal) {
    this.result = result;
    this.job = job;
    this.player = new Player(api.filmAddress(film.id), result);
    this.stage = new Stage(this.player.video, result, `${film.name} with what was found in it`);
    this.timeline = new Timeline(result, { onseek: (frame) => this.player.seek(frame), onfollow: (id) => this.follow(id) });
    this.controls(about);
    this.element = el("div", { class: "watch" },
      el("div", { class: "title" },
        el("h1", { textContent: film.name }),
        el("p", { class: "soft", textContent: `${film.width} × ${film.height} · ${count(result.length, "frame")} · found in ${duration(job.seconds)}` })),
      this.stage.element, this.transport, this.timeline.element,
      el("div", { class: "foot" }, this.threshold, this.downloads()));
    this.stage.onpick = (track) => this.follow(track ? track.id : null);
    this.player.onstate = () => this.showState();
    this.player.onframe((frame) => this.show(frame));
    this.player.video.addEventListener("error", () => notify("This browser cannot play the video."));
    this.set({});
    addEventListener("keydown", (event) => this.key(event), { signal });
    signal.addEventListener("abort", () => { this.player.close(); this.stage.close(); });
  }

  controls(about) {
    this.play = el("button", { class: "play", onclick: () => this.player.toggle() });
    this.time = el("span", { class: "time" });
    const toggle = (name, text, key) => el("button", { class: "toggle", "aria-pressed": "true", "aria-keyshortcuts": key, title: `Show ${name} (${key})`, textContent: text, onclick: () => this.set({ [name]: !this.stage.options[name] }) });
    this.toggles = { masks: toggle("masks", "Masks", "M"), boxes: toggle("boxes", "Boxes", "B"), labels: toggle("labels", "Labels", "L") };
    this.all = el("button", { class: "toggle all", textContent: "Show all", hidden: true, onclick: () => this.follow(null) });
    this.transport = el("div", { class: "transport" }, this.play, this.time, this.all, el("div", { class: "toggles", role: "group", "aria-label": "Show" }, ...Object.values(this.toggles)));
    const slider = el("input", { type: "range", id: "threshold", min: Math.round(about.limits.threshold * 100), max: 100, step: 1, value: 50, oninput: () => this.set({ threshold: slider.valueAsNumber / 100, alone: null }) });
    this.slider = slider;
    this.shown = el("output", { htmlFor: "threshold" });
    this.threshold = el("section", { class: "threshold" }, el("label", { htmlFor: "threshold", textContent: "Score at least" }), slider, this.shown);
    this.showState();
  }

  set(options) {
    this.stage.set(options);
    const now = this.stage.options;
    for (const [name, button] of Object.entries(this.toggles)) button.setAttribute("aria-pressed", now[name]);
    this.timeline.set(now);
    this.all.hidden = now.alone === null;
    this.shown.textContent = `${Math.round(now.threshold * 100)} % · ${count(this.timeline.shown(now.threshold).length, "object")}`;
    this.slider.setAttribute("aria-valuetext", this.shown.textContent);
    this.slider.style.setProperty("--share", `${((this.slider.value - this.slider.min) / (this.slider.max - this.slider.min)) * 100}%`);
  }

  follow(id) {
    const alone = id === this.stage.options.alone ? null : id;
    this.set({ alone });
    const track = this.result.tracks.find((other) => other.id === alone);
    if (track && !track.counts[this.player.target]) {
      const first = track.counts.findIndex((counts) => counts !== null);
      this.player.seek(first); // what is followed should be seen
    }
  }

  show(frame) {
    this.stage.show(frame);
    this.timeline.show(frame);
    this.time.replaceChildren(
      el("b", { textContent: clock(this.result.times[frame]) }), ` / ${clock(this.result.seconds)}`,
      el("span", { class: "soft frame", textContent: `frame ${frame}` }));
  }

  showState() {
    const playing = this.player.playing;
    this.play.replaceChildren(icon(playing ? "pause" : "play"));
    this.play.setAttribute("aria-label", playing ? "Pause" : "Play");
  }

  downloads() {
    const links = FILES.map(([name, what, form]) => {
      const button = el("button", { class: "download", id: `get-${form.toLowerCase()}`, onclick: () => this.take(name, button) },
        icon("down"), el("span", {}, what), el("small", { textContent: form }));
      return el("li", {}, button);
    });
    return el("section", { class: "downloads", "aria-label": "Downloads" }, el("ul", {}, ...links));
  }

  /** Have the server make the file, then let the browser fetch it. */
  async take(name, button) {
    const threshold = this.stage.options.threshold;
    button.disabled = true;
    button.classList.add("busy");
    try {
      await api.prepareFile(this.job.id, name, threshold);
      el("a", { href: api.fileAddress(this.job.id, name, threshold), download: "" }).click();
    } catch (error) {
      notify(error.message);
    } finally {
      button.disabled = false;
      button.classList.remove("busy");
    }
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const own = event.target.closest?.("input, select, textarea"), isScrub = own?.classList.contains("scrub");
    const onButton = event.target.closest?.("button, a, label") && [" ", "Enter"].includes(event.key);
    if ((own && !isScrub && event.key !== " ") || onButton) return;
    const action = this.action(event);
    if (!action) return;
    event.preventDefault();
    action();
  }

  action({ key, shiftKey }) {
    const step = shiftKey ? 10 : 1;
    const actions = {
      " ": () => this.player.toggle(),
      ArrowLeft: () => this.player.step(-step),
      ArrowRight: () => this.player.step(step),
      Home: () => this.player.seek(0),
      End: () => this.player.seek(this.result.length - 1),
      Escape: () => this.follow(null),
      0: () => this.follow(null),
      m: () => this.toggles.masks.click(),
      b: () => this.toggles.boxes.click(),
      l: () => this.toggles.labels.click(),
    };
    if (/^[1-9]$/.test(key)) {
      const track = this.timeline.shown(this.stage.options.threshold)[key - 1];
      return track && (() => this.follow(track.id));
    }
    return actions[key.length === 1 ? key.toLowerCase() : key];
  }
}
