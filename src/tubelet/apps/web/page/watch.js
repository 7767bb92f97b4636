// The first tab: play, look, choose, mend, take home.

import * as api from "/page/api.js";
import { bestJob, described, lookForm, score, scoreField, setScore } from "/page/choices.js";
import { clock, count, duration, el, fileSize, icon, notify } from "/page/dom.js";
import { Editor } from "/page/edit.js";
import { Player, Stage } from "/page/player.js";
import { Cancelled, finish } from "/page/run.js";
import { Seen } from "/page/seen.js";
import { shareField } from "/page/share.js";
import { Timeline } from "/page/timeline.js";
import { Zoom } from "/page/zoom.js";

const FILES = [ // name, id, title, what it is and what opens it
  ["overlay.mp4", "mp4", "Video with overlay", "Masks and names drawn into the video. Any player opens it."],
  ["predictions.json", "json", "Predictions", "Every mask, frame by frame, in the form of YouTube-VIS. For tubelet and other programs."],
  ["davis.zip", "zip", "Masks as images", "A PNG for each frame, as DAVIS has them. For image viewers and labelling tools."],
  ["tracks.csv", "csv", "Table", "Place, size and score of each object in each frame. For Excel, LibreOffice, pandas."],
];
const SPEEDS = [0.25, 0.5, 1, 1.5, 2, 4];

export const AGAIN = "again"; // in the place of a job: none is shown, one is asked for

export async function watch(host, context) {
  const { film, signal, id } = context;
  const job = id === AGAIN ? null : (film.jobs.find((other) => other.id === id) ?? bestJob(film.jobs));
  const last = film.jobs.at(-1);
  if (!job) return void ask(host, context, last?.state === "failed" ? api.sentence(last.error) : "");
  try {
    const { result } = await finish(host, job, film.name, signal);
    const [edits, now] = await Promise.all([api.edits(job.id).catch((error) => ({ refused: error.message })), api.job(job.id)]);
    if (!signal.aborted) host.replaceChildren(new View(now, result, edits, context).element);
  } catch (error) {
    if (signal.aborted) return;
    const cancelled = error instanceof Cancelled;
    ask(host, context, cancelled ? "" : error.message, cancelled ? "Cancelled. The video is kept." : "");
  }
}

/** A video without a result: how shall it be looked at? */
function ask(host, { about, film, home, open }, fault, line = "") {
  const back = el("button", { type: "button", class: "button", textContent: "All videos", onclick: home });
  const form = lookForm(film, about, "Find objects", (job) => open(film.id, job.id), scoreField());
  form.lastChild.append(back);
  host.replaceChildren(el("section", { class: "card", "aria-labelledby": "ask-title" },
    el("h1", { id: "ask-title", textContent: film.name }),
    el("p", { class: "soft", role: "status", textContent: line || `${film.width} × ${film.height} · ${count(film.frames, "frame")}` }),
    fault && el("p", { class: "bad", role: "alert", textContent: fault }),
    form));
}

const words = (title, text) => el("span", { class: "words" }, el("b", { textContent: title }), el("span", { textContent: text }));

/** A button that makes a file; what it says last is the kind of file, and its size once it is made. */
const download = (id, title, text, kind, onclick) => el("button", { class: "download", id: `get-${id}`, onclick }, icon("down"), words(title, text), el("small", { textContent: kind }));

class View {
  constructor(job, result, edits, { about, film, signal, open }) {
    this.result = result;
    this.job = job;
    this.about = about;
    this.player = new Player(api.filmAddress(film.id), result);
    this.stage = new Stage(this.player.video, result, `${film.name} with what was found in it`);
    this.timeline = new Timeline(result, { onseek: (frame) => this.player.seek(frame), onfollow: (id) => this.pick(id) });
    this.zoom = new Zoom(this.stage);
    this.controls(about);
    this.seen = new Seen(job.id, this.player, edits.seen ?? [], signal);
    this.seen.onchange = () => this.timeline.seen(this.seen.spans);
    this.timeline.seen(this.seen.spans);
    if (edits.refused) this.edit.onclick = () => notify(edits.refused);
    else this.editor = new Editor(this, edits, signal);
    this.element = el("div", { class: "watch" },
      el("div", { class: "title" },
        el("h1", { textContent: film.name }),
        el("p", { class: "soft", textContent: `${film.width} × ${film.height} · ${count(result.length, "frame")} · found in ${duration(job.seconds)}` })),
      this.stage.element, this.transport, this.editor?.element ?? "", this.timeline.element,
      el("div", { class: "foot" }, this.threshold, this.looks(film, open), shareField(job), this.downloads()));
    this.element.style.setProperty("--ratio", result.width / result.height);
    this.stage.onpick = (track) => this.pick(track ? track.id : null);
    this.player.onstate = () => this.showState();
    this.player.onframe((frame) => this.show(frame));
    this.player.video.addEventListener("error", () => notify("This browser cannot play the video."));
    this.set({ threshold: score() });
    addEventListener("keydown", (event) => this.key(event), { signal });
    signal.addEventListener("abort", () => { this.player.close(); this.stage.close(); });
  }

  controls(about) {
    this.play = el("button", { class: "play", onclick: () => this.player.toggle() });
    this.time = el("span", { class: "time" });
    const toggle = (name, text, key) => el("button", { class: "toggle", "aria-pressed": "true", "aria-keyshortcuts": key, title: `Show ${name} (${key})`, textContent: text, onclick: () => this.set({ [name]: !this.stage.options[name] }) });
    const step = (name, text, frames) => el("button", { class: "round", "aria-label": text, title: text, onclick: () => this.player.step(frames) }, icon(name));
    this.steps = el("div", { class: "steps", role: "group", "aria-label": "Frames" }, step("back", "One frame back", -1), step("on", "One frame on", 1));
    this.speed = el("select", { "aria-label": "Speed", title: "Speed", onchange: () => { this.player.video.playbackRate = Number(this.speed.value); } },
      ...SPEEDS.map((speed) => el("option", { value: speed, textContent: `${speed} ×`, selected: speed === 1 })));
    this.edit = el("button", { class: "button", id: "edit", "aria-pressed": "false", "aria-keyshortcuts": "E", title: "Edit (E)", textContent: "Edit", onclick: () => this.editor.toggle() });
    this.toggles = { masks: toggle("masks", "Masks", "M"), boxes: toggle("boxes", "Boxes", "B"), labels: toggle("labels", "Labels", "L") };
    this.all = el("button", { class: "toggle all", textContent: "Show all", hidden: true, onclick: () => this.follow(null) });
    this.transport = el("div", { class: "transport" }, this.play, this.steps, this.time, this.speed, this.all,
      el("div", { class: "toggles", role: "group", "aria-label": "Show" }, ...Object.values(this.toggles)), this.edit);
    const slider = el("input", { type: "range", id: "threshold", min: Math.round(about.limits.threshold * 100), max: 100, step: 1, value: Math.round(score() * 100), oninput: () => this.hide(slider.valueAsNumber / 100) });
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

  pick(id) {
    if (this.editor?.active) this.editor.choose(id);
    else this.follow(id);
  }

  /** Edit mode begins or ends. */
  editing(active) {
    this.edit.setAttribute("aria-pressed", active);
    this.edit.textContent = active ? "Done" : "Edit";
    this.zoom.wheel = this.seen.editing = active;
    this.timeline.guides.hidden = !active;
    if (active) this.seen.shown(this.player.frame);
    this.set({ alone: null });
  }

  /** An edit has changed the tracks. */
  changed(options) {
    this.timeline.forget();
    this.set(options);
  }

  /** While an outline is drawn, it belongs to the frame that is shown. */
  locked(is) {
    for (const part of [this.play, this.timeline.range, ...this.steps.children]) part.disabled = is;
    this.timeline.element.inert = is;
  }

  /** Shows the objects that reach a score alone. */
  hide(threshold) {
    setScore(threshold);
    this.set({ threshold, alone: null });
    if (this.editor?.active) this.editor.filtered();
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

  /** The results of this video, and a way to another one. */
  looks(film, open) {
    const done = film.jobs.filter((job) => job.state === "done" || job.id === this.job.id);
    const facts = (job) => [described(job), job.edits && count(job.edits, "edit")].filter(Boolean).join(" · ");
    const select = el("select", { id: "result", onchange: () => open(film.id, select.value) },
      ...done.map((job) => el("option", { value: job.id, textContent: facts(job), selected: job.id === this.job.id })));
    const again = (job) => (job.id === this.job.id ? notify("This is the result of these choices.") : open(film.id, job.id));
    return el("section", { class: "looks", "aria-labelledby": "looks-title" },
      el("h2", { id: "looks-title", textContent: "Look again" }),
      done.length > 1 && el("div", { class: "field" }, el("label", { htmlFor: "result", textContent: "Result" }), select),
      lookForm(film, this.about, "Find objects", again));
  }

  /** What can be taken home, in words. */
  downloads() {
    const entries = FILES.map(([name, id, title, words]) => {
      const button = download(id, title, words, name.split(".").at(-1).toUpperCase(), () => this.take(name, button));
      return el("li", {}, button);
    });
    this.made = el("p", { class: "small", role: "status" });
    return el("section", { class: "downloads", "aria-labelledby": "downloads-title" },
      el("h2", { id: "downloads-title", textContent: "Download" }), el("ul", {}, ...entries, ...this.labels()), this.made);
  }

  /** The result as data to train on. */
  labels() {
    const forms = Object.entries(this.about.forms).map(([form, name]) => el("option", { value: form, textContent: name }));
    const form = el("select", { "aria-label": "Form of the labelled data" }, ...forms);
    const frames = el("select", { "aria-label": "Frames of the labelled data" },
      el("option", { value: "seen", textContent: "frames seen" }), el("option", { value: "all", textContent: "all frames" }));
    const button = download("labels", "Labelled data", "Frames and outlines to learn from. For labelling tools and trainings.", "ZIP", async () => {
      await this.seen.send();
      this.take("labels.zip", button, { form: form.value, frames: frames.value });
    });
    const teach = () => this.seen.send().then(() => { location.hash = `/teach/${this.job.id}`; });
    const teachable = this.about.models.some((model) => model.learns);
    return [
      el("li", {}, button, el("div", { class: "forms" }, form, frames)),
      teachable && el("li", {}, el("button", { class: "download", id: "train-on-this", onclick: teach }, icon("on"), words("Train on this", "A model learns from this result, as you have mended and seen it."))),
    ].filter(Boolean);
  }

  /** Have the server make the file, then let the browser fetch it. */
  async take(name, button, wish = {}) {
    button.disabled = true;
    button.classList.add("busy");
    this.made.textContent = `Making ${name}`;
    try {
      const { address, bytes } = await api.prepareFile(this.job.id, name, { threshold: this.stage.options.threshold.toFixed(2), ...wish });
      el("a", { href: address, download: "" }).click();
      button.lastChild.textContent = fileSize(bytes);
      this.made.textContent = `${name} is made: ${fileSize(bytes)}`;
    } catch (error) {
      this.made.textContent = "";
      notify(error.message);
    } finally {
      button.disabled = false;
      button.classList.remove("busy");
    }
  }

  key(event) {
    if (event.altKey || document.querySelector("dialog[open]")) return;
    const own = event.target.closest?.("input, select, textarea"), isScrub = own?.classList.contains("scrub");
    const onButton = event.target.closest?.("button, a, label") && [" ", "Enter"].includes(event.key);
    const isText = own && !["range", "checkbox"].includes(own.type);
    if (event.key === "Escape" && this.editor?.active) return void (event.preventDefault(), this.editor.escape());
    if (isText || (own && !isScrub && event.key !== " ") || onButton) return;
    const action = (this.editor?.active && this.editor.action(event)) || this.action(event);
    if (!action) return;
    event.preventDefault();
    action();
  }

  action(event) {
    const { key, shiftKey } = event;
    if (event.ctrlKey || event.metaKey) return null;
    const step = shiftKey ? 10 : 1;
    const actions = {
      " ": () => this.player.toggle(),
      ArrowLeft: () => this.player.step(-step),
      ArrowRight: () => this.player.step(step),
      Home: () => this.player.seek(0),
      End: () => this.player.seek(this.result.length - 1),
      Escape: () => this.follow(null),
      0: () => this.pick(null),
      e: () => this.edit.click(),
      m: () => this.toggles.masks.click(),
      b: () => this.toggles.boxes.click(),
      l: () => this.toggles.labels.click(),
    };
    if (/^[1-9]$/.test(key)) {
      const track = this.timeline.shown(this.stage.options.threshold)[key - 1];
      return track && (() => this.pick(track.id));
    }
    return actions[key.length === 1 ? key.toLowerCase() : key] ?? (() => this.zoom.key(event));
  }
}
