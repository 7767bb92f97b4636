// The first thing one sees: where to drop a video, and what is there already.

import * as api from "/page/api.js";
import { classesField } from "/page/classes.js";
import { clock, count, el, icon, notify } from "/page/dom.js";
import { ProgressCard } from "/page/run.js";

export async function start(host, { about, open, signal }) {
  const list = el("section", { class: "recent", "aria-label": "Videos", hidden: true });
  const place = el("div", { class: "start" });
  host.replaceChildren(place, list);
  const send = (file) => upload(place, file, about, open, () => place.replaceChildren(dropZone(about, send, tryExample)));
  const tryExample = () => api.example().then((film) => open(film.id)).catch((error) => notify(error.message));
  place.replaceChildren(dropZone(about, send, tryExample));
  acceptDrops(send, signal);
  await fill(list, open);
}

function dropZone(about, send, tryExample) {
  const { megabytes, frames } = about.limits;
  const input = el("input", { type: "file", id: "file", class: "unseen", accept: "video/*,.mkv,.avi,.ts,.gif", onchange: () => input.files[0] && send(input.files[0]) });
  const label = el("label", { class: "button primary", htmlFor: "file" }, icon("up"), "Choose a video");
  return el("section", { class: "drop", "aria-labelledby": "drop-title" },
    el("h1", { id: "drop-title", textContent: "Drop a video" }),
    el("p", { class: "soft", textContent: "Every object is found, outlined, named and followed." }),
    el("div", { class: "row" }, input, label, about.example && el("button", { class: "button", id: "example", textContent: "Try the example", onclick: tryExample })),
    classesField(about.models[0]),
    el("p", { class: "small", id: "limits", textContent: `Up to ${megabytes.toLocaleString("en")} MB and ${count(frames, "frame")} (${Math.round(frames / 180) / 10} minutes at 30 frames a second). Videos stay on this server.` }));
}

function acceptDrops(send, signal) {
  const mark = (is) => document.body.classList.toggle("dropping", is);
  addEventListener("dragover", (event) => { event.preventDefault(); mark(true); }, { signal });
  addEventListener("dragleave", (event) => event.relatedTarget === null && mark(false), { signal });
  addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    if (event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
  }, { signal });
  signal.addEventListener("abort", () => mark(false));
}

async function upload(place, file, about, open, back) {
  if (file.size > about.limits.megabytes * 1e6) {
    notify(`${file.name} has ${Math.ceil(file.size / 1e6).toLocaleString("en")} MB; at most ${about.limits.megabytes} MB are taken.`);
    return;
  }
  const card = new ProgressCard(file.name, () => sending.abort());
  place.replaceChildren(card.element);
  card.set(0, "Uploading");
  const sending = api.upload(file, (share) => card.set(share, share < 1 ? `Uploading · ${Math.round(share * 100)} %` : "Looking at it"));
  try {
    open((await sending.done).id);
  } catch (error) {
    if (error.status !== -1) notify(error.message);
    back();
  }
}

async function fill(list, open) {
  const videos = await api.videos();
  list.hidden = videos.length === 0;
  list.replaceChildren(el("h2", { textContent: "Videos" }), el("ul", {}, ...videos.map((film) => row(film, open, () => fill(list, open)))));
}

function row(film, open, refresh) {
  const remove = async () => {
    if (!confirm(`Remove ${film.name} and its results from this server?`)) return;
    await api.removeVideo(film.id).catch((error) => notify(error.message));
    refresh();
  };
  return el("li", {},
    el("button", { class: "film", onclick: () => open(film.id) },
      el("b", { textContent: film.name }),
      el("span", { class: "soft", textContent: `${film.width} × ${film.height} · ${clock(film.seconds)} · ${state(film.jobs)}` })),
    el("button", { class: "quiet", "aria-label": `Remove ${film.name}`, onclick: remove }, icon("close")));
}

function state(jobs) {
  if (jobs.some((job) => ["queued", "running"].includes(job.state))) return "in work";
  const done = jobs.filter((job) => job.state === "done");
  if (done.length) return count(done[0].objects, "object");
  return jobs.length ? "failed" : "not looked at yet";
}
