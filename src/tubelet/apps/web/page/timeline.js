// A line per identity: when it is seen, how sure the model is, and where it is missing; and the film's cuts.

import { clock, el, percent } from "/page/dom.js";

export class Timeline {
  /** `onseek(frame)`, `onfollow(id or null)`. */
  constructor(result, { onseek, onfollow }) {
    this.result = result;
    this.onseek = onseek;
    this.onfollow = onfollow;
    this.range = el("input", { type: "range", class: "scrub", min: 0, max: result.length - 1, step: 1, value: 0, "aria-label": "Frame", oninput: () => onseek(this.range.valueAsNumber) });
    this.head = el("div", { class: "head", "aria-hidden": "true" });
    this.rows = el("ol", { class: "tracks", "aria-label": "Objects" });
    this.nothing = el("p", { class: "soft", textContent: "No object reaches this threshold.", hidden: true });
    this.element = el("section", { class: "timeline", "aria-label": "Time line" },
      el("div", { class: "ruler" }, el("span"), this.range, el("span")), this.rows, this.nothing, this.cuts(), this.head);
    this.rows.addEventListener("click", (event) => this.jump(event));
  }

  /** Rows for the objects that reach the threshold; `alone` is the followed one. */
  set({ threshold, alone }) {
    const shown = this.shown(threshold);
    if (threshold !== this.threshold) {
      this.threshold = threshold;
      this.rows.replaceChildren(...shown.map((track, place) => this.row(track, place)));
      this.nothing.hidden = shown.length > 0;
      this.head.hidden = !shown.length;
    }
    [...this.rows.children].forEach((row, place) => {
      const followed = shown[place].id === alone;
      row.classList.toggle("faded", alone !== null && !followed);
      row.firstChild.setAttribute("aria-pressed", followed);
    });
  }

  shown(threshold) {
    return this.result.tracks.filter((track) => track.score >= threshold);
  }

  show(frame) {
    this.range.value = frame;
    this.range.setAttribute("aria-valuetext", `frame ${frame}, ${clock(this.result.times[frame])}`);
    const share = this.result.length > 1 ? frame / (this.result.length - 1) : 0;
    this.element.style.setProperty("--at", share);
    this.range.style.setProperty("--share", percent(share).replace(" ", ""));
  }

  /** A thin mark where each shot but the first begins; a click goes there. */
  cuts() {
    const marks = this.result.shots.slice(1).map((frame, place) => {
      const mark = el("i", { class: "cut", title: `Cut: shot ${place + 2} begins, frame ${frame} (${clock(this.result.times[frame])})`, onclick: () => this.onseek(frame) });
      mark.style.left = `${(frame / this.result.length) * 100}%`;
      return mark;
    });
    return el("div", { class: "cuts", role: "img", "aria-label": `${marks.length} cuts`, hidden: !marks.length }, ...marks);
  }

  row(track, place) {
    const swatch = el("i", { class: "swatch" });
    swatch.style.background = track.colour;
    const spans = track.spans();
    const told = spans.map(([first, last]) => (first === last ? `${first}` : `${first} to ${last}`)).join(", ");
    const bar = el("div", { class: "bar", role: "img", "aria-label": `seen in frames ${told}` },
      ...spans.map(([first, last]) => this.piece(track, first, last)));
    const seen = spans.reduce((sum, [first, last]) => sum + last - first + 1, 0);
    const name = el("button", { class: "name", "aria-pressed": "false", title: place < 9 ? `Follow alone (${place + 1})` : "Follow alone", onclick: () => this.onfollow(track.id) },
      swatch, el("span", { class: "what", textContent: track.name }), el("span", { class: "soft", textContent: track.id }));
    return el("li", {}, name, bar, el("span", { class: "score", title: `Score; seen in ${seen} of ${this.result.length} frames`, textContent: percent(track.score) }));
  }

  piece(track, first, last) {
    const piece = el("i");
    piece.style.background = track.colour;
    piece.style.left = `${(first / this.result.length) * 100}%`;
    piece.style.width = `${((last - first + 1) / this.result.length) * 100}%`;
    return piece;
  }

  jump(event) {
    const bar = event.target.closest(".bar");
    if (!bar) return;
    const place = bar.getBoundingClientRect();
    this.onseek(Math.floor(((event.clientX - place.left) / place.width) * this.result.length));
  }
}
