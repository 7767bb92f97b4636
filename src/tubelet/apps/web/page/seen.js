// Which frames a person has looked at: those that were played through and, while editing, those that stood still.

import * as api from "/page/api.js";

const REST = 400; // milliseconds that a picture stands until it counts as looked at
const SEND = 1500; // milliseconds between two messages to the server
const SKIPPED = 8; // most frames between two pictures of a video that plays

export class Seen {
  constructor(job, player, spans, signal) {
    this.job = job;
    this.player = player;
    this.frames = new Set();
    this.unsent = new Set();
    this.editing = false;
    this.onchange = null;
    this.last = -1;
    this.take(spans);
    player.onframe((frame) => this.shown(frame));
    signal.addEventListener("abort", () => this.send());
    addEventListener("pagehide", () => this.send(), { signal });
  }

  /** What the server knows. */
  take(spans) {
    for (const [first, last] of spans) for (let t = first; t <= last; t++) this.frames.add(t);
  }

  shown(frame) {
    clearTimeout(this.resting);
    const step = frame - this.last;
    if (this.player.playing && step > 0 && step <= SKIPPED) for (let t = this.last; t <= frame; t++) this.note(t);
    else if (this.editing && !this.player.playing && Math.abs(step) === 1) this.note(frame);
    else if (this.editing) this.resting = setTimeout(() => this.note(frame), REST);
    this.last = frame;
  }

  note(frame) {
    if (frame < 0 || this.frames.has(frame)) return;
    this.frames.add(frame);
    this.unsent.add(frame);
    this.onchange?.();
    this.sending ??= setTimeout(() => this.send(), SEND);
  }

  /** Tells the server; what does not arrive is told again with the next frames. */
  async send() {
    clearTimeout(this.sending);
    this.sending = null;
    const frames = [...this.unsent];
    if (!frames.length) return;
    this.unsent.clear();
    await api.see(this.job, spansOf(frames)).catch(() => frames.forEach((frame) => this.unsent.add(frame)));
  }

  get spans() {
    return spansOf([...this.frames]);
  }
}

/** Runs of frames, each as its first and its last. */
function spansOf(frames) {
  const spans = [];
  for (const frame of frames.sort((a, b) => a - b)) {
    if (spans.length && spans.at(-1)[1] === frame - 1) spans.at(-1)[1] = frame;
    else spans.push([frame, frame]);
  }
  return spans;
}
