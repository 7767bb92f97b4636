// The first thing one sees: where to drop a video, and what is there already.

import * as api from "/page/api.js";
import { bestJob, fields, submit } from "/page/choices.js";
import { clock, count, el, fileSize, icon, notify, percent } from "/page/dom.js";
import { ProgressCard } from "/page/run.js";

export async function start(host, { about, open, again, camera, teach, signal }) {
  const list = el("section", { class: "recent", "aria-label": "Videos", hidden: true });
  const place = el("div", { class: "start" });
  host.replaceChildren(place, list);
  const show = () => place.replaceChildren(dropZone(about, send, { fetchOne, tryExample, camera }));
  const refresh = () => fill(list, { open, again, signal, teach: about.models.some((model) => model.learns) && teach });
  const look = (film) => submit(film, about).catch((error) => notify(error.message)).then(() => open(film.id));
  const send = (files) => (files.length === 1 ? upload(place, files[0], about, look, show) : uploadAll(place, files, about, refresh, signal).then(show));
  const fetchOne = (address) => bring(place, new URL(address).hostname, (card) => fetching(address, card), look, show);
  const tryExample = () => api.example().then(look).catch((error) => notify(error.message));
  show();
  acceptDrops((files) => files.length && send(files), signal);
  await refresh();
}

function dropZone(about, send, { fetchOne, tryExample, camera }) {
  const { megabytes, frames } = about.limits;
  const input = el("input", { type: "file", id: "file", class: "unseen", multiple: true, accept: "video/*,.mkv,.avi,.ts,.gif", onchange: () => input.files.length && send([...input.files]) });
  const label = el("label", { class: "button primary", htmlFor: "file" }, icon("up"), "Choose videos");
  return el("section", { class: "drop", "aria-labelledby": "drop-title" },
    el("h1", { id: "drop-title", textContent: "Drop a video" }),
    el("p", { class: "soft", textContent: "Every object is found, outlined, named and followed." }),
    el("div", { class: "row" }, input, label, about.example && el("button", { class: "button", id: "example", textContent: "Try the example", onclick: tryExample }),
      el("button", { class: "button", id: "camera", textContent: "Use the camera", onclick: camera })),
    about.addresses && addressForm(fetchOne),
    el("div", { class: "row" }, ...fields(about)),
    el("p", { class: "small", id: "limits", textContent: `Up to ${megabytes.toLocaleString("en")} MB and ${count(frames, "frame")} (${Math.round(frames / 180) / 10} minutes at 30 frames a second). Videos stay on this server.` }));
}

function addressForm(fetchOne) {
  const input = el("input", { type: "url", id: "address", required: true, maxLength: 4000, placeholder: "https://", autocomplete: "off" });
  return el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); fetchOne(input.value.trim()); } },
    el("div", { class: "field" }, el("label", { htmlFor: "address", textContent: "or its address" }), input),
    el("button", { class: "button", id: "fetch", textContent: "Fetch" }));
}

function acceptDrops(send, signal) {
  const mark = (is) => document.body.classList.toggle("dropping", is);
  addEventListener("dragover", (event) => { event.preventDefault(); mark(true); }, { signal });
  addEventListener("dragleave", (event) => event.relatedTarget === null && mark(false), { signal });
  addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    filesOf(event.dataTransfer).then(send, () => notify("The browser cannot read this folder."));
  }, { signal });
  signal.addEventListener("abort", () => mark(false));
}

const isVideo = (file) => file.type.startsWith("video/") || /\.(mkv|avi|ts|gif)$/i.test(file.name);

/** The files that were dropped; of folders, the videos in them. */
async function filesOf({ items, files }) {
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...files];
  return (await Promise.all(entries.map(inside))).flat().filter(isVideo);
}

async function inside(entry) {
  if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
  const reader = entry.createReader();
  const more = () => new Promise((done, failed) => reader.readEntries(done, failed));
  const entries = [];
  for (let some = await more(); some.length; some = await more()) entries.push(...some); // at most a hundred at a time
  return (await Promise.all(entries.map(inside))).flat();
}

async function upload(place, file, about, look, back) {
  if (file.size > about.limits.megabytes * 1e6) {
    notify(`${file.name} has ${Math.ceil(file.size / 1e6).toLocaleString("en")} MB; at most ${about.limits.megabytes} MB are taken.`);
    return;
  }
  await bring(place, file.name, (card) => api.upload(file, (share) => card.set(share, share < 1 ? `Uploading · ${percent(share)}` : "Looking at it")), look, back);
}

/** Has the server fetch a video, and shows how far it is. */
function fetching(address, card) {
  return api.fetchVideo(address, (bytes, all) => card.set(all && bytes / all, bytes && bytes === all ? "Looking at it" : `Fetching · ${fileSize(bytes)}${all ? ` of ${fileSize(all)}` : ""}`));
}

/** Shows a card while a video comes, by `begin(card)`, which returns { done, abort }. */
async function bring(place, title, begin, look, back) {
  let coming;
  const card = new ProgressCard(title, () => coming.abort());
  place.replaceChildren(card.element);
  card.set(0, "Starting");
  coming = begin(card);
  try {
    await look(await coming.done);
  } catch (error) {
    if (error.status !== -1) notify(error.message);
    back();
  }
}

const BUSY = 503;
const AGAIN = 5000; // milliseconds, after the server had no place

/** Sends files one after the other, each a job of its own; waits where the server's queue is full. */
async function uploadAll(place, files, about, refresh, signal) {
  let sending;
  let stopped = false;
  const stop = () => { stopped = true; sending?.abort(); };
  const card = new ProgressCard(count(files.length, "file"), stop);
  place.replaceChildren(card.element);
  signal.addEventListener("abort", stop);
  const refused = [];
  let film = null;

  for (let n = 0; n < files.length && !stopped;) {
    const file = files[n];
    const set = (share, what) => card.set((n + share) / files.length, `${what} ${file.name} · ${n + 1} of ${files.length}`);
    try {
      if (file.size > about.limits.megabytes * 1e6) throw new api.ApiError(413, `More than ${about.limits.megabytes} MB.`);
      if (!film) {
        sending = api.upload(file, (share) => set(share, "Uploading"));
        film = await sending.done;
      }
      await submit(film, about);
    } catch (error) {
      if (error.status === BUSY) {
        set(0, "Waiting with");
        await new Promise((done) => setTimeout(done, AGAIN));
        continue;
      }
      if (error.status !== -1) refused.push(`${file.name}: ${error.message}`);
    }
    n += 1;
    film = null;
    if (!signal.aborted) await refresh();
  }
  if (refused.length) notify(refused.slice(0, 3).join(" ") + (refused.length > 3 ? ` And ${refused.length - 3} more.` : ""));
}

async function fill(list, context) {
  const { signal, teach } = context;
  const videos = await api.videos();
  if (signal.aborted) return;
  const refresh = () => fill(list, context);
  clearTimeout(fill.timer);
  if (videos.some((film) => film.jobs.some(inWork))) fill.timer = setTimeout(() => signal.aborted || refresh().catch(() => {}), 2000);
  const shown = JSON.stringify(videos.map((film) => [film.id, state(film.jobs)]));
  if (list.dataset.shown === shown) return; // what has the focus keeps it
  list.dataset.shown = shown;
  list.hidden = videos.length === 0;
  list.replaceChildren(
    el("div", { class: "over" }, el("h2", { textContent: "Videos" }), teach && el("button", { class: "button", id: "teach", textContent: "Teach a model", onclick: teach })),
    el("ul", {}, ...videos.map((film) => row(film, context, refresh))));
}

function row(film, { open, again }, refresh) {
  const remove = async () => {
    if (!confirm(`Remove ${film.name} and its results from this server?`)) return;
    await api.removeVideo(film.id).catch((error) => notify(error.message));
    refresh();
  };
  return el("li", {},
    el("button", { class: "film", onclick: () => open(film.id) },
      el("b", { textContent: film.name }),
      el("span", { class: "soft", textContent: `${film.width} × ${film.height} · ${clock(film.seconds)} · ${state(film.jobs)}` })),
    film.jobs.length > 0 && !film.jobs.some(inWork) && el("button", { class: "quiet", "aria-label": `Look again at ${film.name}`, onclick: () => again(film.id) }, "Again"),
    el("button", { class: "quiet", "aria-label": `Remove ${film.name}`, onclick: remove }, icon("close")));
}

const inWork = (job) => ["queued", "running"].includes(job.state);

function state(jobs) {
  const now = jobs.find(inWork);
  if (now) return now.state === "queued" ? "waiting" : "in work";
  const best = bestJob(jobs);
  if (!best) return jobs.length ? "failed" : "not looked at yet";
  const done = jobs.filter((job) => job.state === "done").length;
  return [count(best.objects, "object"), done > 1 && count(done, "result")].filter(Boolean).join(" · ");
}
