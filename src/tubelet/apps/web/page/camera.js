// The browser's own camera: a picture is sent, drawn with what was found in it, and only then the next one is taken.

import * as api from "/page/api.js";
import { fields, look, score, scoreField } from "/page/choices.js";
import { el, icon } from "/page/dom.js";
import { Result, visible } from "/page/masks.js";
import { Stage } from "/page/player.js";

const SIDE = 640; // pixels of the longer side of a picture that is sent
const QUALITY = 0.85;
const BUSY = 503;
const AGAIN = 1000; // milliseconds, after the server had no place
const RECENT = 20; // pictures over which the rate is taken

const FAULTS = {
  NotAllowedError: "The browser may not use the camera. Allow it beside the page's address, then start again.",
  NotFoundError: "There is no camera.",
  OverconstrainedError: "There is no camera.",
  NotReadableError: "The camera is used by another program.",
};
const NONE = "This browser gives a page no camera here: it does so at https addresses, and on this machine.";

export function camera(host, { about, home, signal }) {
  host.replaceChildren(new View(about, home, signal).element);
}

class View {
  constructor(about, home, signal) {
    this.about = about;
    this.video = el("video", { muted: true, playsInline: true });
    this.line = el("p", { class: "soft", role: "status", textContent: "Its pictures go to this server, which looks at them and keeps none." });
    this.facts = el("p", { class: "soft facts", hidden: true }); // changes with every picture: not for screen readers to follow
    this.fault = el("p", { class: "bad", role: "alert", hidden: true });
    this.button = el("button", { class: "button primary", id: "camera-start", onclick: () => (this.running ? this.stop() : this.start()) });
    this.back = el("button", { class: "button", textContent: "All videos", onclick: home });
    this.place = el("div", { class: "place" }, el("p", { class: "centre soft", textContent: "The camera is off." }));
    this.choices = el("div", { class: "look" }, ...fields(about), scoreField());
    this.element = el("div", { class: "watch" },
      el("div", { class: "title" }, el("h1", { textContent: "Camera" })),
      this.place, this.facts, this.fault, this.line, el("div", { class: "answers" }, this.button, this.back), this.choices);
    this.choices.addEventListener("change", () => this.stage?.set({ threshold: score() }));
    signal.addEventListener("abort", () => this.stop());
    this.show(false);
  }

  show(running) {
    this.running = running;
    this.button.replaceChildren(icon(running ? "close" : "play"), running ? "Stop" : "Start the camera");
  }

  say(fault) {
    this.fault.textContent = fault;
    this.fault.hidden = !fault;
  }

  async start() {
    this.say("");
    if (!navigator.mediaDevices?.getUserMedia) return this.say(NONE);
    this.show(true);
    this.line.textContent = "Asking the browser for the camera.";
    try {
      this.tracks = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: SIDE }, facingMode: { ideal: "environment" } } });
      if (!this.running) return void this.release(); // stopped meanwhile
      this.tracks.getVideoTracks()[0].addEventListener("ended", () => this.running && this.stop("The camera has ended."));
      this.video.srcObject = this.tracks;
      await this.video.play();
      await this.run();
    } catch (error) {
      if (this.running) this.stop(error instanceof api.ApiError ? error.message : (FAULTS[error.name] ?? `The camera cannot be used: ${error.message}`));
    }
  }

  stop(fault = "") {
    this.say(fault);
    this.release();
    if (this.session) api.leaveCamera(this.session);
    this.session = null;
    this.line.textContent = fault ? "" : "Stopped.";
    this.facts.hidden = true;
    this.show(false);
  }

  release() {
    this.tracks?.getTracks().forEach((track) => track.stop());
    this.tracks = null;
  }

  /** One picture after the other, until the camera is stopped. */
  async run() {
    const session = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    this.session = session;
    const taken = this.prepare();
    this.line.textContent = "Looking.";
    const stamps = [];
    while (this.session === session) {
      await newPicture(this.video);
      taken.getContext("2d").drawImage(this.video, 0, 0, taken.width, taken.height);
      const jpeg = await new Promise((done) => taken.toBlob(done, "image/jpeg", QUALITY));
      let found;
      try {
        found = await api.lookAt(jpeg, { session, ...look(this.about) });
      } catch (error) {
        if (error.status !== BUSY) throw error;
        this.line.textContent = error.message;
        await new Promise((done) => setTimeout(done, AGAIN));
        continue;
      }
      if (this.session !== session) return;
      this.draw(taken, new Result(found));
      stamps.push(performance.now());
      if (stamps.length > RECENT) stamps.shift();
      this.tell(stamps);
    }
  }

  /** A canvas that pictures are taken with; and a stage that shows them. */
  prepare() {
    const { videoWidth, videoHeight } = this.video;
    const share = Math.min(SIDE / Math.max(videoWidth, videoHeight), 1);
    const size = { width: Math.round(videoWidth * share), height: Math.round(videoHeight * share) };
    this.stage?.close();
    this.stage = new Stage(el("canvas", { class: "mirror", ...size }), new Result({ size: [size.height, size.width], length: 1, times: [0], classes: [], tracks: [] }), "The camera's picture with what was found in it");
    this.stage.set({ threshold: score() });
    this.place.replaceChildren(this.stage.element);
    return el("canvas", size);
  }

  draw(taken, result) {
    this.stage.picture.getContext("2d").drawImage(taken, 0, 0);
    this.stage.result = result;
    this.stage.draw();
  }

  tell(stamps) {
    const rate = stamps.length > 1 ? ((stamps.length - 1) * 1000) / (stamps.at(-1) - stamps[0]) : 0;
    const names = visible(this.stage.result, 0, this.stage.options).map((track) => `${track.name} ${track.id}`).join(", ");
    this.facts.hidden = false;
    this.facts.textContent = `${rate ? `${rate.toFixed(1)} pictures a second · ` : ""}${names || "no object"}`;
  }
}

/** Waits for a picture that was not taken yet. */
function newPicture(video) {
  return new Promise((done) => {
    if ("requestVideoFrameCallback" in video) video.requestVideoFrameCallback(done);
    else requestAnimationFrame(done);
  });
}
