// How a video is looked at: by which model, for which classes, from which score on. Kept while the tab is open.

import * as api from "/page/api.js";
import { el, notify, percent } from "/page/dom.js";

const SCORE = 0.5;

/** The names of the classes that were chosen; none stands for all. */
const classes = () => (sessionStorage.getItem("classes") ?? "").split(",").map((name) => name.trim()).filter(Boolean);

/** The model that was chosen, as the server describes it; the first one if none was. */
const model = (about) => about.models.find((other) => other.name === sessionStorage.getItem("model")) ?? about.models[0];

/** The score from which on objects are shown. */
export const score = () => Number(sessionStorage.getItem("score") ?? SCORE);
export const setScore = (value) => sessionStorage.setItem("score", value);

/** The model and the classes that were chosen. */
export const look = (about) => ({ model: model(about).name, classes: classes() });

/** Has the server look at a video in the way that was chosen; resolves to the job, which may be an earlier one. */
export const submit = (film, about) => api.submit({ video: film.id, model: model(about).name, classes: classes().length ? classes() : null });

/** The fields for model and classes. */
export function fields(about) {
  const names = el("datalist", { id: "class-names" });
  const suggest = () => names.replaceChildren(...model(about).classes.map((name) => el("option", { value: name })));
  const input = el("input", { type: "text", id: "classes", list: "class-names", placeholder: "all", autocomplete: "off", value: classes().join(", "), oninput: () => sessionStorage.setItem("classes", input.value) });
  const select = el("select", { id: "model", onchange: () => { sessionStorage.setItem("model", select.value); suggest(); } },
    ...about.models.map((other) => el("option", { value: other.name, textContent: other.name })));
  select.value = model(about).name;
  suggest();
  return [
    about.models.length > 1 && el("div", { class: "field" }, el("label", { htmlFor: "model", textContent: "Model" }), select),
    el("div", { class: "field" }, el("label", { htmlFor: "classes", textContent: "Classes" }), input, names),
  ].filter(Boolean);
}

/** A form that looks at a video, again or for the first time; `open` is called with the job. */
export function lookForm(film, about, text, open, ...more) {
  const start = el("button", { class: "button primary", id: "look", textContent: text });
  const send = async (event) => {
    event.preventDefault();
    start.disabled = true;
    await submit(film, about).then(open, (error) => notify(error.message));
    start.disabled = false;
  };
  return el("form", { class: "look", onsubmit: send, "aria-label": "How the video is looked at" }, ...fields(about), ...more, el("div", { class: "answers" }, start));
}

/** The field for the score, where there is no result yet whose slider does it. */
export function scoreField() {
  const options = [...new Set([0.3, 0.5, 0.7, score()])].sort().map((share) => el("option", { value: share, textContent: percent(share), selected: share === score() }));
  const select = el("select", { id: "score", onchange: () => setScore(select.value) }, ...options);
  return el("div", { class: "field" }, el("label", { htmlFor: "score", textContent: "Objects that score at least" }), select);
}

/** How a result was made, as a line. */
export function described(job) {
  const window = job.length === null ? [] : [job.length === 1 ? "frame by frame" : `${job.length} frames at a time`];
  return [job.model, job.classes ? job.classes.join(", ") : "all classes", ...window].join(" · ");
}

/** The result that a video opens with: one that was edited, read as its model reads, and the newest. */
export function bestJob(jobs) {
  const worth = (job) => [job.edits > 0, job.length === null];
  const usable = jobs.filter((job) => job.state !== "failed").reverse();
  return usable.sort((a, b) => worth(b)[0] - worth(a)[0] || worth(b)[1] - worth(a)[1])[0] ?? null;
}
