// Which view is shown: the address says it, as #/, #/camera, #/teach/<result>... or #/<video>/<tab>/<result>.

import * as api from "/page/api.js";
import { attention } from "/page/attention.js";
import { camera } from "/page/camera.js";
import { compare } from "/page/compare.js";
import { el, notify } from "/page/dom.js";
import { teach } from "/page/teach.js";
import { start } from "/page/start.js";
import { AGAIN, watch } from "/page/watch.js";

const VIEWS = { watch, compare, attention };
const host = document.querySelector("#panel");
const tabs = document.querySelector("[role=tablist]");
let leaving = new AbortController();
let about = null;

const go = (address) => { location.hash = address; };
const home = () => go("/");
const open = (film, job) => go(`/${film}/watch${job ? `/${job}` : ""}`);

async function route() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [id, wanted, ...more] = location.hash.replace(/^#\/?/, "").split("/");
  const tab = wanted in VIEWS ? wanted : "watch";
  try {
    about = await api.about(); // models come and go
    document.querySelector("#user").textContent = about.user;
    if (signal.aborted) return;
    showTabs(["teach", "camera"].includes(id) ? "" : id, tab);
    if (id === "teach") {
      document.title = "Teach a model · tubelet";
      await teach(host, { about, signal, renew: route, ids: [wanted, ...more].filter(Boolean) });
      return;
    }
    if (id === "camera") {
      document.title = "Camera · tubelet";
      camera(host, { about, signal, home });
      return;
    }
    if (!id) {
      await start(host, { about, signal, open, again: (film) => open(film, AGAIN), camera: () => go("/camera"), teach: () => go("/teach") });
      return;
    }
    const film = (await api.videos()).find((other) => other.id === id);
    if (signal.aborted) return;
    if (!film) { home(); return; }
    document.title = `${film.name} · tubelet`;
    await VIEWS[tab](host, { about, film, signal, home, open, id: more[0] });
  } catch (error) {
    if (signal.aborted) return;
    notify(error.message);
    if (!about) host.replaceChildren(el("p", { class: "centre", textContent: error.message }));
  }
}

function showTabs(id, tab) {
  tabs.hidden = !id;
  document.title = "tubelet";
  host.setAttribute("role", id ? "tabpanel" : "presentation");
  if (id) host.setAttribute("aria-labelledby", `tab-${tab}`); else host.removeAttribute("aria-labelledby");
  for (const button of tabs.children) {
    const chosen = button.dataset.tab === tab;
    button.setAttribute("aria-selected", chosen);
    button.tabIndex = chosen ? 0 : -1;
    button.onclick = () => go(`/${id}/${button.dataset.tab}`);
  }
}

tabs.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  event.stopPropagation();
  event.preventDefault();
  const all = [...tabs.children];
  const next = all[(all.indexOf(document.activeElement) + step + all.length) % all.length];
  next.focus();
  next.click();
});

const keys = document.querySelector("#keys");
document.querySelector("#help").addEventListener("click", () => keys.showModal());
addEventListener("keydown", (event) => event.key === "?" && !keys.open && keys.showModal());
addEventListener("hashchange", route);
route();
