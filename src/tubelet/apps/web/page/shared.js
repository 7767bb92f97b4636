// One result behind a link: it can be watched, and nothing else.

import * as api from "/page/api.js";
import { clock, count, el, icon, notify } from "/page/dom.js";
import { Result } from "/page/masks.js";
import { Player, Stage } from "/page/player.js";
import { Timeline } from "/page/timeline.js";
import { Zoom } from "/page/zoom.js";

const host = document.querySelector("#panel");
const word = location.pathname.split("/").pop();
const SWITCHES = { masks: "Masks", boxes: "Boxes", labels: "Labels" };

class SharedView {
  constructor(result) {
    this.player = new Player(api.sharedFilmAddress(word), result);
    this.stage = new Stage(this.player.video, result, "The video with what was found in it");
    this.timeline = new Timeline(result, { onseek: (frame) => this.player.seek(frame), onfollow: (id) => this.follow(id) });
    this.zoom = new Zoom(this.stage);
    this.play = el("button", { class: "play", onclick: () => this.player.toggle() });
    this.time = el("span", { class: "time" });
    this.switches = Object.entries(SWITCHES).map(([name, text]) =>
      el("button", { class: "toggle", "aria-pressed": "true", "data-name": name, textContent: text, onclick: () => this.set({ [name]: !this.stage.options[name] }) }));
    const transport = el("div", { class: "transport" }, this.play, this.time, el("div", { class: "toggles", role: "group", "aria-label": "Show" }, ...this.switches));
    this.element = el("div", { class: "watch" },
      el("h1", { textContent: "A shared result" }),
      el("p", { class: "soft", textContent: `${result.width} × ${result.height} · ${count(result.length, "frame")}` }),
      this.stage.element, transport, this.timeline.element);
    this.element.style.setProperty("--ratio", result.width / result.height);

    this.stage.onpick = (track) => this.follow(track ? track.id : null);
    this.player.onstate = () => this.showState();
    this.player.onframe((frame) => this.show(frame, result));
    this.player.video.addEventListener("error", () => notify("This browser cannot play the video, or the link was withdrawn."));
    this.set({});
    this.showState();
  }

  set(options) {
    this.stage.set(options);
    this.timeline.set(this.stage.options);
    for (const button of this.switches) button.setAttribute("aria-pressed", this.stage.options[button.dataset.name]);
  }

  follow(id) {
    this.set({ alone: id === this.stage.options.alone ? null : id });
  }

  show(frame, result) {
    this.stage.show(frame);
    this.timeline.show(frame);
    this.time.replaceChildren(el("b", { textContent: clock(result.times[frame]) }), ` / ${clock(result.seconds)}`);
  }

  showState() {
    this.play.replaceChildren(icon(this.player.playing ? "pause" : "play"));
    this.play.setAttribute("aria-label", this.player.playing ? "Pause" : "Play");
  }
}

try {
  host.replaceChildren(new SharedView(new Result(await api.sharedResult(word))).element);
} catch (error) {
  host.replaceChildren(el("div", { class: "centre" }, el("h1", { textContent: "Nothing to show" }), el("p", { textContent: error.message })));
}
