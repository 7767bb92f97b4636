// Teaching: a model learns from results that a person has looked at, and shows what it was worth on some that were held out.

import * as api from "/page/api.js";
import { count, duration, el, icon, notify, percent } from "/page/dom.js";

const STAGES = { starting: "Starting", labelling: "Writing the frames", training: "Learning", comparing: "Comparing before and after" };
const STEPS = [[100, "100: known classes"], [300, "300: new classes"], [1000, "1,000: thorough"]];
const SCORES = [0.3, 0.5, 0.7];
const BUSY = ["queued", "running"];
const ADD = "Add a model (.safetensors)";

export async function teach(host, context) {
  const { about, signal, ids } = context;
  const [videos, trainings, models] = await Promise.all([api.videos(), api.trainings(), api.models()]);
  if (signal.aborted) return;
  const renew = () => !signal.aborted && context.renew();
  host.replaceChildren(el("div", { class: "teach" },
    el("div", { class: "title" }, el("h1", { textContent: "Teach a model" }),
      el("p", { class: "soft", textContent: "It learns from results as you have edited and seen them. A part is held out, to measure what it has learned." })),
    form(about, videos, ids, renew),
    ...trainings.map((training) => new Card(training, signal, renew).element),
    ownModels(models, renew)));
}

/** One result of each video: the one that was worked on most. */
function lessons(videos) {
  return videos.flatMap((film) => {
    const done = film.jobs.filter((job) => job.state === "done");
    done.sort((a, b) => b.edits - a.edits || b.seen - a.seen);
    return done.slice(0, 1).map((job) => ({ film, job }));
  });
}

function form(about, videos, ids, renew) {
  const able = about.models.filter((model) => model.learns);
  const results = lessons(videos);
  if (!able.length) return el("p", { class: "card", textContent: "None of the models of this server can be taught: it needs the bundled one." });
  if (!results.length) return el("p", { class: "card", textContent: "There is no finished result yet. Drop a video first, look at it, and mend what is wrong." });

  const boxes = results.map(({ film, job }) => {
    const box = el("input", { type: "checkbox", value: job.id, checked: ids.length ? ids.includes(job.id) : job.seen > 0 });
    const facts = [count(job.objects, "object"), `${job.seen} of ${count(film.frames, "frame")} seen`];
    if (job.edits) facts.splice(1, 0, count(job.edits, "edit"));
    return el("li", {}, el("label", {}, box, el("b", { textContent: film.name }), el("span", { class: "soft", textContent: facts.join(" · ") })));
  });
  const options = (pairs, value) => pairs.map(([own, text]) => el("option", { value: own, textContent: text, selected: own === value }));
  const name = el("input", { type: "text", maxLength: 60, required: true, autocomplete: "off", placeholder: "My goats" });
  const model = el("select", {}, ...options(able.map((one) => [one.name, one.name])));
  const frames = el("select", {}, ...options([["seen", "you have seen"], ["all", "all"]]));
  const score = el("select", {}, ...options(SCORES.map((share) => [share, percent(share)]), 0.5));
  const steps = el("select", {}, ...options(STEPS, 100));
  const start = el("button", { class: "button primary", textContent: "Train on these" });
  const field = (text, part) => el("label", {}, text, part);

  const send = async (event) => {
    event.preventDefault();
    const chosen = boxes.map((row) => row.querySelector("input")).filter((box) => box.checked).map((box) => box.value);
    if (!chosen.length) return notify("Choose at least one result.");
    start.disabled = true;
    try {
      await api.teach({ name: name.value.trim(), model: model.value, results: chosen, frames: frames.value, threshold: Number(score.value), steps: Number(steps.value) });
      renew();
    } catch (error) {
      notify(error.message);
      start.disabled = false;
    }
  };
  return el("form", { class: "lesson", onsubmit: send, "aria-label": "What it learns from" },
    el("ul", { class: "choices" }, ...boxes),
    el("div", { class: "ask" }, field("Name of the new model", name), field("Start from", model), field("Frames", frames),
      field("Objects that score at least", score), field("Steps", steps), el("div", { class: "answers" }, start)));
}

/** One training: its progress and curve, then its figures and pictures. */
class Card {
  constructor(training, signal, renew) {
    this.training = training;
    this.renew = renew;
    this.bar = el("progress", { max: 1, "aria-label": `Progress of ${training.name}` });
    this.line = el("p", { class: "soft", role: "status" });
    this.curve = el("div", { class: "curve" });
    this.buttons = el("div", { class: "answers" });
    this.element = el("section", { class: "lesson", "aria-label": training.name }, el("h2", { textContent: training.name }), this.bar, this.line, this.curve);
    if (training.summary) this.element.append(...outcome(training));
    this.element.append(this.buttons);
    this.show(training);
    if (!BUSY.includes(training.state)) return void this.draw();
    signal.addEventListener("abort", api.follow(training.id, (now) => this.changed(now), "trainings"));
    const timer = setInterval(() => this.draw(), 3000);
    signal.addEventListener("abort", () => clearInterval(timer));
    this.draw();
  }

  changed(now) {
    if (BUSY.includes(now.state)) this.show(now);
    else this.renew();
  }

  show(now) {
    const busy = BUSY.includes(now.state);
    const [share, line] = describe(now);
    this.bar.hidden = !busy;
    if (share === null) this.bar.removeAttribute("value"); else this.bar.value = share;
    this.line.textContent = line;
    if (this.shown === now.state) return;
    this.shown = now.state;
    const button = (text, act, name = null) => el("button", { type: "button", class: "button", textContent: text, "aria-label": name, onclick: async (event) => {
      event.target.disabled = true;
      await act().then(() => busy || this.renew(), (error) => notify(error.message));
    } });
    const remove = () => (confirm(`Remove this training of ${now.name}? A model that it has made stays.`) ? api.removeTraining(now.id) : Promise.resolve());
    this.buttons.replaceChildren(...[
      busy && button("Stop", () => api.stopTraining(now.id)),
      now.can_go_on && button("Continue", () => api.continueTraining(now.id)),
      !busy && button("Remove", remove, `Remove the training of ${now.name}`),
    ].filter(Boolean));
  }

  async draw() {
    const rows = await api.trainingCurve(this.training.id).catch(() => []);
    if (rows.length) this.curve.replaceChildren(...curve(rows, this.training.steps));
  }
}

function describe(now) {
  const from = `from ${count(now.videos, "video")}, on ${now.model}`;
  if (now.state === "queued" && now.full) return [null, "Waiting: the server's disk is full"];
  if (now.state === "queued") return [null, now.ahead ? `Waiting: ${count(now.ahead, "job")} before this one` : "Waiting"];
  if (now.state === "stopped") return [null, `Stopped; it can go on where it was · ${from}`];
  if (now.state === "failed") return [null, `Failed: ${now.error}`];
  if (now.state === "done" && now.summary.gain === false) return [null, `No gain on ${now.summary.held_out}: the model you have stays`];
  if (now.state === "done") return [null, `Learned ${from} · ${count(now.steps, "step")} · measured on ${now.summary.held_out}`];
  if (!now.total) return [null, STAGES.starting];
  const parts = [STAGES[now.stage]];
  if (now.stage === "training") parts.push(`${now.done} of ${count(now.total, "step")}`);
  if (now.left && now.done < now.total) parts.push(`about ${duration(now.left)} left`);
  return [now.done / now.total, parts.join(" · ")];
}

/** What it was worth: figures before and after, and pictures side by side. */
function outcome({ id, summary }) {
  const better = Object.keys(summary.before).map((figure) => el("tr", {},
    el("th", { scope: "row", textContent: figure === "mean" ? "Their mean, which decides" : figure }), el("td", { textContent: figureOf(summary.before[figure]) }), el("td", { textContent: figureOf(summary.after[figure]) })));
  const table = el("table", {}, el("caption", { class: "small", textContent: "On what was held out, in percent" }),
    el("thead", {}, el("tr", {}, el("td"), el("th", { scope: "col", textContent: "Before" }), el("th", { scope: "col", textContent: "After" }))), el("tbody", {}, ...better));
  const picture = (side, n, caption) => el("figure", {},
    el("img", { src: api.trainingPicture(id, side, n), alt: `${caption}, ${side}`, loading: "lazy" }), el("figcaption", { textContent: `${side === "before" ? "Before" : "After"} · ${caption}` }));
  const pairs = summary.pictures.map((caption, n) => el("div", { class: "pair" }, picture("before", n, caption), picture("after", n, caption)));
  const missing = summary.missing.length && el("p", { class: "small", textContent: `Only in the frames held out, so not learned: ${summary.missing.join(", ")}.` });
  const fresh = summary.new?.length > 0 && el("p", { class: "small", textContent: `New to the model: ${summary.new.join(", ")}. It may know less of other things now.` });
  return [table, missing || "", fresh || "", ...pairs];
}

const figureOf = (share) => (share < 0 ? "unknown" : (100 * share).toFixed(1));

/** The losses as a line, the validation as points, in two small pictures. */
function curve(rows, steps) {
  const losses = rows.filter((row) => row.loss !== undefined);
  const validated = rows.filter((row) => row.validation_overall >= 0);
  return [
    chart("Loss", losses.map((row) => [row.step, row.loss]), steps, (value) => value.toFixed(2)),
    chart("Held out", validated.map((row) => [row.step, 100 * row.validation_overall]), steps, (value) => value.toFixed(1)),
  ].filter(Boolean);
}

function chart(name, points, steps, written) {
  if (!points.length) return null;
  const top = Math.max(...points.map(([, value]) => value)) || 1;
  const places = points.map(([step, value]) => [(step / steps) * 200, 58 - (value / top) * 54]);
  const space = "http://www.w3.org/2000/svg";
  const part = (tag, attributes) => {
    const element = document.createElementNS(space, tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const [first, last] = [points[0][1], points.at(-1)[1]].map(written);
  const svg = part("svg", { viewBox: "0 0 200 60", role: "img", "aria-label": `${name}: from ${first} to ${last}` });
  svg.append(part("polyline", { points: places.map((place) => place.map((x) => x.toFixed(1)).join(",")).join(" ") }));
  for (const [x, y] of places.length < 12 ? places : []) svg.append(part("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 2 }));
  return el("figure", {}, svg, el("figcaption", { class: "small", textContent: first === last ? `${name} ${last}` : `${name} ${first} → ${last}` }));
}

function ownModels(models, renew) {
  const rows = models.map((model) => {
    const remove = async () => {
      if (!confirm(`Remove the model ${model.name} from this server? Results that it has given stay.`)) return;
      await api.removeModel(model.id).catch((error) => notify(error.message));
      renew();
    };
    return el("li", {}, el("span", { class: "film" }, el("b", { textContent: model.name }),
      el("span", { class: "soft", textContent: `${(model.bytes / 1e6).toFixed(1)} MB${model.loaded ? "" : " · not loaded"}` })),
    el("a", { class: "quiet", href: api.modelAddress(model.id), download: "", "aria-label": `Download ${model.name}` }, icon("down")),
    el("button", { class: "quiet", "aria-label": `Remove the model ${model.name}`, onclick: remove }, icon("close")));
  });
  const input = el("input", { type: "file", id: "model-file", class: "unseen", accept: ".safetensors", onchange: async () => {
    const [file] = input.files;
    input.disabled = true;
    try {
      await api.uploadModel(file, (share) => { label.lastChild.textContent = share < 1 ? `Uploading ${percent(share)}` : "Loading it"; }).done;
      renew();
    } catch (error) {
      notify(error.message);
      label.lastChild.textContent = ADD;
      input.disabled = false;
      input.value = "";
    }
  } });
  const label = el("label", { class: "button", htmlFor: "model-file" }, icon("up"), ADD);
  return el("section", { class: "recent", "aria-label": "Your models" },
    el("div", { class: "over" }, el("h2", { textContent: "Your models" }), el("span", {}, input, label)), el("ul", {}, ...rows));
}
