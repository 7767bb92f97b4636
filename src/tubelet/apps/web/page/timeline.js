// A line per identity: when it is seen, how sure the model is, where it is missing, and where a person drew it; the
// film's cuts; and while editing, what was looked at and where to look.

import { clock, el, percent } from "/page/dom.js";

const LOW = 0.6; // a score at which the model is often wrong

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
      el("div", { class: "ruler" }, el("span"), this.range, el("span")), this.guide(), this.rows, this.nothing, this.cuts(), this.head);
    this.rows.addEventListener("click", (event) => this.jump(event));
  }

  /** The tracks have changed: the next `set` makes all rows anew. */
  forget() {
    this.threshold = null;
  }

  /** Rows for the objects that reach the threshold; `alone` is the followed one, `chosen` the one that is edited. */
  set({ threshold, alone, chosen }) {
    const shown = this.shown(threshold);
    if (threshold !== this.threshold) {
      this.threshold = threshold;
      this.rows.replaceChildren(...shown.map((track, place) => this.row(track, place)));
      this.nothing.hidden = shown.length > 0;
      this.head.hidden = !shown.length;
    }
    [...this.rows.children].forEach((row, place) => {
      const { id } = shown[place], followed = id === (alone ?? chosen);
      row.classList.toggle("faded", alone !== null && !followed);
      if (followed && row.firstChild.getAttribute("aria-pressed") === "false") reveal(this.rows, row);
      row.firstChild.setAttribute("aria-pressed", followed);
    });
  }

  /** Two lines that are seen while editing: what was looked at, and the doubtful places. */
  guide() {
    const line = (name) => {
      const bar = el("div", { class: "bar", role: "img", "aria-label": name }), number = el("span", { class: "score" });
      return { bar, number, element: el("div", { class: "ruler" }, el("span", { class: "what soft", textContent: name }), bar, number) };
    };
    this.looked = line("Seen");
    this.places = line("Doubtful places");
    this.guides = el("div", { class: "guide", hidden: true }, this.looked.element, this.places.element);
    this.guides.addEventListener("click", (event) => this.jump(event));
    return this.guides;
  }

  /** `spans`: first and last frame of each run that was looked at. */
  seen(spans) {
    const total = spans.reduce((sum, [first, last]) => sum + last - first + 1, 0);
    this.looked.bar.replaceChildren(...spans.map(([first, last]) => this.place(el("i"), first, last)));
    this.looked.bar.setAttribute("aria-label", `${total} of ${this.result.length} frames were looked at`);
    this.looked.number.textContent = percent(total / this.result.length);
  }

  doubts(places) {
    const frames = [...new Set(places.map(({ frame }) => frame))];
    this.places.bar.replaceChildren(...frames.map((frame) => this.place(el("i", { class: "doubt", title: `Frame ${frame}` }), frame, frame)));
    this.places.bar.setAttribute("aria-label", `doubtful: frames ${frames.join(", ")}`);
    this.places.number.textContent = places.length;
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
    const drawn = track.drawn.length ? `; drawn by hand in ${track.drawn.join(", ")}` : "";
    const bar = el("div", { class: "bar", role: "img", "aria-label": `seen in frames ${told}${drawn}` },
      ...spans.map(([first, last]) => this.piece(track, first, last)),
      ...track.drawn.map((frame) => this.place(el("i", { class: "drawn", title: `Drawn by hand in frame ${frame}` }), frame, frame)));
    const seen = spans.reduce((sum, [first, last]) => sum + last - first + 1, 0);
    const name = el("button", { class: "name", "aria-pressed": "false", title: place < 9 ? `Choose (${place + 1})` : "Choose", onclick: () => this.onfollow(track.id) },
      swatch, el("span", { class: "what", textContent: track.name }), el("span", { class: "soft", textContent: track.id }));
    return el("li", {}, name, bar, el("span", { class: track.score < LOW ? "score low" : "score", title: `${track.score < LOW ? "Low score" : "Score"}; seen in ${seen} of ${this.result.length} frames`, textContent: percent(track.score) }));
  }

  piece(track, first, last) {
    const piece = this.place(el("i"), first, last);
    piece.style.background = track.colour;
    return piece;
  }

  place(element, first, last) {
    element.style.left = `${(first / this.result.length) * 100}%`;
    element.style.width = `${((last - first + 1) / this.result.length) * 100}%`;
    return element;
  }

  jump(event) {
    const bar = event.target.closest(".bar");
    if (!bar) return;
    const place = bar.getBoundingClientRect();
    this.onseek(Math.floor(((event.clientX - place.left) / place.width) * this.result.length));
  }
}

/** Scrolls a list, and nothing else, so that a row is seen. */
function reveal(list, row) {
  const over = list.getBoundingClientRect().top - row.getBoundingClientRect().top, under = row.getBoundingClientRect().bottom - list.getBoundingClientRect().bottom;
  if (over > 0) list.scrollTop -= over;
  else if (under > 0) list.scrollTop += under;
}
