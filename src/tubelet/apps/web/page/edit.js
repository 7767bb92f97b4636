// Edit mode: choose an object, mend it, undo. The server does each edit and answers with the tracks that have changed.

import * as api from "/page/api.js";
import { count, el, notify } from "/page/dom.js";
import { Outline } from "/page/outline.js";

const REASONS = {
  "low score": "the model is not sure",
  meeting: "two of a class meet; are they exchanged from here on?",
  twice: "one object found twice?",
  gap: "comes back after a gap",
  "same object?": "one object under two numbers?",
};
const BEGIN = "Choose an object: click it in the picture or in the list.";
const DOUBTS_AFTER = 300; // milliseconds of rest after an edit

export class Editor {
  constructor(view, state, signal) {
    Object.assign(this, { view, result: view.result, stage: view.stage, player: view.player, job: view.job.id });
    this.active = false;
    this.chosen = null; // an id
    this.doubts = [];
    this.follows = view.about.models.find(({ name }) => name === view.job.model)?.follows; // whether the model can
    this.queue = Promise.resolve(); // edits are sent one after the other
    this.build();
    this.take(state, "");
    addEventListener("focus", () => this.active && this.refresh(), { signal }); // another tab may have edited
  }

  build() {
    const tool = (name, text, keys, action) => {
      const shown = keys.replace(/(Control|Meta)/, "Ctrl");
      return (this[`${name}Button`] = el("button", { class: "button", id: `edit-${name}`, "aria-keyshortcuts": keys, title: `${text} (${shown})`, textContent: text, onclick: action }));
    };
    this.general = el("div", { class: "tools", role: "group", "aria-label": "Result" },
      tool("doubt", "Next doubtful place", "N", () => this.goOn(1)), tool("add", "Add an object", "A", () => this.add()),
      tool("undo", "Undo", "Control+Z", () => this.undo()), tool("redo", "Redo", "Control+Shift+Z", () => this.redo()));
    this.verbs = el("div", { class: "tools", role: "group", "aria-label": "Chosen object", hidden: true },
      this.name = el("b", { class: "chosen" }),
      tool("outline", "Redraw", "D", () => this.redraw()),
      this.follows && tool("follow", "Follow…", "T", () => this.askToFollow()),
      tool("rename", "Rename", "R", () => this.rename()),
      tool("merge", "Merge…", "G", () => this.merge()), tool("split", "Split here", "S", () => this.split()),
      tool("swap", "Swap…", "W", () => this.swap()), tool("part", "Delete part…", "X", () => this.deletePart()),
      tool("delete", "Delete", "Delete", () => this.delete()), tool("alike", "Wrong everywhere", "Q", () => this.deleteAlike()));
    this.alikeButton.title = "Delete this object and all of its class that rest at the same place (Q)";
    this.line = el("p", { class: "soft", role: "status" });
    this.list = el("ol", {});
    this.summary = el("summary", {});
    this.history = el("details", { class: "history", ontoggle: () => this.listEdits() }, this.summary, this.list);
    this.element = el("section", { class: "edit", "aria-label": "Edit", hidden: true }, this.general, this.verbs, this.line, this.history);
  }

  // what is shown

  toggle(active = !this.active) {
    if (this.following) return void this.following.click();
    this.active = active;
    this.element.hidden = !active;
    this.dismiss();
    this.choose(null);
    this.view.editing(active);
    if (active) {
      this.player.video.pause();
      this.line.textContent = BEGIN;
      this.look();
    }
  }

  choose(id) {
    if (this.other && id !== null && id !== this.chosen) { // a second object is asked for
      this.other.value = id;
      this.other.dispatchEvent(new Event("change"));
      return;
    }
    if (this.asked && id !== this.chosen) this.dismiss();
    const track = this.pointAt(id);
    this.view.set({ chosen: this.chosen, alone: null });
    if (track && track.counts[this.player.target] === null) this.player.seek(nearest(track, this.player.target));
  }

  /** Other objects reach the threshold than before. */
  filtered() {
    if (!this.drawing && !this.following) this.choose(null);
    this.lookSoon();
  }

  pointAt(id) {
    const track = this.result.track(id);
    this.chosen = track?.id ?? null;
    this.verbs.hidden = track === null;
    this.name.replaceChildren(...(track ? label(track) : []));
    return track;
  }

  listEdits() {
    if (!this.history.open) return; // there may be thousands
    this.list.replaceChildren(...this.state.edits.map((text) => el("li", { textContent: text })));
    this.list.scrollTop = this.list.scrollHeight;
  }

  /** The state that the server tells after `what`. */
  take(state, what) {
    const known = new Set(this.result.tracks.map((track) => track.id));
    this.result.update(state);
    this.state = state;
    this.undoButton.disabled = !state.edits.length;
    this.redoButton.disabled = state.redo === null;
    this.summary.textContent = state.edits.length ? `${count(state.edits.length, "edit")}, saved` : "No edits yet";
    this.listEdits();
    this.line.textContent = what;
    this.pointAt(this.chosen);
    this.view.changed({ chosen: this.chosen });
    if (this.active) this.lookSoon();
    return state.ids.find((id) => !known.has(id));
  }

  // talking to the server

  /** Sends one step after those that are under way; resolves to whether it was done, and to the id that it made. */
  send(request) {
    const next = this.queue.then(async () => {
      const before = this.state;
      try {
        const state = await request(this.state.revision);
        return { done: true, made: this.take(state, told(before, state)) };
      } catch (error) {
        if (error.status === api.STALE) await this.reload();
        notify(error.message);
        return { done: false };
      }
    });
    this.queue = next;
    return next;
  }

  edit(change) {
    return this.send((revision) => api.edit(this.job, revision, change));
  }

  undo() {
    if (this.state.edits.length) this.send((revision) => api.undo(this.job, revision));
  }

  redo() {
    if (this.state.redo !== null) this.send((revision) => api.redo(this.job, revision));
  }

  /** Shows the result as it is on the server. */
  async reload() {
    const state = await api.edits(this.job);
    this.dismiss();
    this.result.tracks = this.result.found;
    this.take(state, "");
  }

  async refresh() {
    const state = await api.edits(this.job).catch(() => this.state);
    if (state.revision === this.state.revision) return;
    this.result.tracks = this.result.found;
    this.take(state, "This result was changed in another tab or window; here it is as it is now.");
  }

  // where to look

  lookSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), DOUBTS_AFTER);
  }

  async look() {
    this.doubts = await api.doubts(this.job, this.stage.options.threshold).catch(() => []);
    this.doubtButton.disabled = !this.doubts.length;
    this.view.timeline.doubts(this.doubts);
  }

  /** To the next doubtful place, or the one before. */
  goOn(step) {
    if (!this.doubts.length) return;
    const here = this.player.target, at = this.doubts.findIndex((place) => same(place, this.place));
    const visited = at >= 0 && this.place.frame === here;
    const after = step > 0 ? this.doubts.findIndex(({ frame }) => frame >= here) : this.doubts.findLastIndex(({ frame }) => frame <= here);
    const beyond = step > 0 ? 0 : -1; // from the last place to the first, and back
    const next = visited ? at + step : after < 0 ? beyond : after;
    this.place = this.doubts.at(next % this.doubts.length);
    const { frame, tracks, reason } = this.place;
    this.player.step(frame - here);
    this.choose(tracks[0]);
    const names = tracks.map((id) => nameOf(this.result.track(id))).join(" and ");
    this.line.textContent = `Doubtful place ${this.doubts.indexOf(this.place) + 1} of ${this.doubts.length}, frame ${frame}: ${names}: ${REASONS[reason] ?? reason}`;
  }

  /** The other objects, first the one of the doubtful place, then those of the same class. */
  others() {
    const { tracks } = this.place ?? { tracks: [] };
    const { name } = this.result.track(this.chosen);
    const likely = (track) => 2 * tracks.includes(track.id) + (track.name === name);
    const others = this.view.timeline.shown(this.stage.options.threshold).filter(({ id }) => id !== this.chosen);
    return others.sort((a, b) => likely(b) - likely(a));
  }

  // the verbs

  delete() {
    this.edit({ kind: "delete", track: this.chosen });
  }

  deleteAlike() {
    this.edit({ kind: "delete_alike", track: this.chosen });
  }

  async split() {
    const { made } = await this.edit({ kind: "split", track: this.chosen, at: this.player.target, new: this.state.next });
    if (made !== undefined) this.choose(made);
  }

  deletePart() {
    const track = this.result.track(this.chosen), here = this.player.target;
    const [, last] = track.spans().find(([first, end]) => first <= here && here <= end) ?? [here, here];
    const from = this.frameInput(here), to = this.frameInput(last);
    this.ask(`Delete ${nameOf(track)}`, [["from frame", from], ["to frame", to]], "Delete", () =>
      this.edit({ kind: "delete", track: track.id, first: from.valueAsNumber, last: to.valueAsNumber }));
  }

  rename() {
    const track = this.result.track(this.chosen), name = this.classInput(track.name);
    this.ask(`Rename ${nameOf(track)}`, [["to", name]], "Rename", () => this.edit({ kind: "rename", track: track.id, name: name.value.trim() }));
    name.select();
  }

  merge() {
    const track = this.result.track(this.chosen), other = this.otherSelect();
    if (!other) return;
    const prefer = el("select", {}), asked = el("label", {}, "where both are seen, keep", prefer);
    const choose = () => {
      const second = this.result.track(Number(other.value)), both = second.counts.filter((counts, t) => counts !== null && track.counts[t] !== null).length;
      asked.hidden = !both;
      prefer.replaceChildren(...[track, second].map(({ id, name }) => el("option", { value: id, textContent: `${name} ${id} (${count(both, "frame")})` })));
    };
    other.addEventListener("change", choose);
    choose();
    this.ask(`Merge ${nameOf(track)}`, [["with", other], asked], "Merge", () =>
      this.edit({ kind: "merge", track: track.id, other: Number(other.value), ...(asked.hidden ? {} : { prefer: Number(prefer.value) }) }));
  }

  swap() {
    const track = this.result.track(this.chosen), other = this.otherSelect();
    if (!other) return;
    const from = this.frameInput(this.player.target), to = this.frameInput(this.result.length - 1);
    this.ask(`Swap ${nameOf(track)}`, [["with", other], ["from frame", from], ["to frame", to]], "Swap", () => {
      const last = to.valueAsNumber === this.result.length - 1 ? {} : { last: to.valueAsNumber };
      return this.edit({ kind: "swap", track: track.id, other: Number(other.value), first: from.valueAsNumber, ...last });
    });
  }

  redraw() {
    const track = this.result.track(this.chosen), frame = this.player.target;
    const counts = track.counts[frame], title = `Redraw ${nameOf(track)} in frame ${frame}`;
    this.draw({ title, counts, box: track.at(frame)?.box, colour: track.colour, tool: counts ? "brush" : "polygon" }, frame,
      (mask) => this.edit({ kind: "redraw", track: track.id, frame, mask }));
    this.view.stage.set({ hidden: track.id });
  }

  askToFollow() {
    const track = this.result.track(this.chosen), frame = this.player.target;
    const ways = el("select", {}, el("option", { value: "both", textContent: "both ways" }), el("option", { value: "on", textContent: "forwards" }), el("option", { value: "back", textContent: "backwards" }));
    const begin = async () => {
      this.follow(track.id, frame, ways.value);
      return { done: false }; // the form is replaced already
    };
    this.ask(`Follow ${nameOf(track)} from frame ${frame}`, [["direction", ways]], "Follow", begin);
    this.asked.append(el("p", { class: "soft", textContent: "The model replaces its masks by what it finds from this one: to the ends of the shot, or to the next frame drawn by hand." }));
  }

  /** The model follows an object from its mask in a frame; the picture goes with it. */
  async follow(id, frame, ways) {
    this.dismiss();
    const bar = el("progress", { max: 1, value: 0, "aria-label": "Followed" }), line = el("p", { class: "soft", role: "status", textContent: "Starting" });
    const stop = el("button", { class: "button", textContent: "Stop", onclick: () => { stop.disabled = true; api.stopFollowing(this.job).catch(() => {}); } });
    const card = el("section", { class: "ask", "aria-label": "Following" }, el("h2", { textContent: `Following ${nameOf(this.result.track(id))}` }), bar, stop, line);
    this.following = stop;
    this.view.seen.editing = false; // what passes by is not looked at
    this.occupy(card);
    stop.focus({ preventScroll: true });

    const copy = this.result.copy(id), started = performance.now();
    const { done } = await this.send((revision) => api.followObject(this.job, { revision, track: id, frame, ways }, (told) => {
      copy.set(told.frame, told.counts);
      this.player.seek(told.frame);
      bar.value = told.done / told.total;
      line.textContent = `${told.done} of ${count(told.total, "frame")} · ${(told.done / (performance.now() - started) * 1000).toFixed(1)} frames/s`;
    }));
    this.following = null;
    this.view.seen.editing = this.active;
    this.release(card);
    if (done) this.player.seek(frame);
    else await this.reload();
  }

  add() {
    const frame = this.player.target, name = this.classInput(this.lastName ?? this.result.track(this.chosen)?.name ?? "");
    const extra = el("label", {}, "Class", name);
    this.draw({ title: `Add an object in frame ${frame}`, counts: null, colour: "#00c2ff", tool: "polygon", extra }, frame, async (mask) => {
      this.lastName = name.value.trim();
      const answer = await this.edit({ kind: "add", new: this.state.next, name: this.lastName, frame, mask });
      if (answer.made !== undefined) this.choose(answer.made);
      return answer;
    });
  }

  // asking

  frameInput(value) {
    return el("input", { type: "number", min: 0, max: this.result.length - 1, value, required: true });
  }

  classInput(value) {
    const names = [...new Set([...this.result.tracks.map((track) => track.name), ...this.result.classes])];
    this.names?.remove();
    this.names = el("datalist", { id: "edit-classes" }, ...names.map((name) => el("option", { value: name })));
    this.element.append(this.names);
    return el("input", { type: "text", list: "edit-classes", value, required: true, maxLength: 100, autocomplete: "off", placeholder: "class" });
  }

  otherSelect() {
    const others = this.others();
    if (!others.length) {
      notify("There is no other object.");
      return null;
    }
    return (this.picking = el("select", {}, ...others.map((track) => el("option", { value: track.id, textContent: nameOf(track) }))));
  }

  /** A line of fields below the buttons; a refusal leaves it open. */
  ask(title, fields, action, send) {
    const opener = document.activeElement, other = this.picking;
    this.dismiss();
    this.other = other;
    this.opener = opener;
    const answer = async (event) => {
      event.preventDefault();
      if ((await send()).done) this.dismiss();
    };
    const hint = other && el("p", { class: "soft", textContent: "Or click the other object in the picture." });
    this.asked = el("form", { class: "ask", "aria-label": title, onsubmit: answer },
      el("h2", { textContent: title }),
      ...fields.map((field) => (Array.isArray(field) ? el("label", {}, ...field) : field)),
      el("div", { class: "answers" }, el("button", { class: "button primary", textContent: action }),
        el("button", { class: "button", type: "button", textContent: "Cancel", onclick: () => this.dismiss() })), hint);
    this.verbs.after(this.asked);
    this.asked.querySelector("select, input").focus({ preventScroll: true });
    this.asked.scrollIntoView({ block: "nearest" });
  }

  draw(wish, frame, send) {
    this.dismiss();
    this.player.step(0);
    this.drawing = new Outline(this.stage, this.view.zoom, {
      ...wish,
      follows: this.follows,
      onsave: async (mask, follows) => {
        if (!mask) return notify("Nothing is drawn yet.");
        const { done } = await send(mask);
        if (done) this.dismiss();
        if (done && follows) this.follow(this.chosen, frame, "both");
      },
      oncancel: () => this.dismiss(),
    });
    this.occupy(this.drawing.element);
    (wish.extra && !this.lastName ? wish.extra.querySelector("input") : this.drawing.surface).focus({ preventScroll: true });
  }

  /** Shows a form alone, and holds the video at its frame. */
  occupy(form) {
    this.element.classList.add("drawing");
    this.line.before(form);
    this.view.locked(true);
    form.scrollIntoView({ block: "nearest" });
  }

  release(form) {
    form.remove();
    this.element.classList.remove("drawing");
    this.view.locked(false);
  }

  /** Closes what is asked or drawn. */
  dismiss() {
    const drew = this.drawing;
    this.drawing?.close();
    if (this.asked?.contains(document.activeElement)) this.opener?.focus();
    this.asked?.remove();
    this.drawing = this.asked = this.other = this.picking = null;
    if (!drew) return;
    this.release(drew.element);
    this.stage.set({ hidden: null });
  }

  // keys

  /** What a key does in edit mode, or null. */
  action(event) {
    const { key, shiftKey } = event;
    if (this.following) return () => {}; // but Escape, which stops it
    if (event.ctrlKey || event.metaKey) {
      if (key.toLowerCase() === "z" && this.drawing) return () => this.drawing.undo();
      if (key.toLowerCase() === "z") return () => (shiftKey ? this.redo() : this.undo());
      return key.toLowerCase() === "y" && !this.drawing ? () => this.redo() : null;
    }
    if (key === "Escape") return () => this.escape();
    if (this.drawing) return () => this.drawing.key(event);
    const general = { n: () => this.goOn(shiftKey ? -1 : 1), a: () => this.add(), ArrowUp: () => this.next(-1), ArrowDown: () => this.next(1) };
    const verbs = { d: "outline", t: "follow", r: "rename", g: "merge", s: "split", w: "swap", x: "part", q: "alike", Delete: "delete", Backspace: "delete" };
    const name = key.length === 1 ? key.toLowerCase() : key;
    if (verbs[name]) return this.chosen === null ? () => { this.line.textContent = BEGIN; } : () => this[`${verbs[name]}Button`]?.click();
    return general[name] ?? null;
  }

  escape() {
    if (this.following) this.following.click();
    else if (this.drawing || this.asked) this.dismiss();
    else if (this.chosen !== null) this.choose(null);
    else this.toggle(false);
  }

  /** The object before or after the chosen one in the list. */
  next(step) {
    const shown = this.view.timeline.shown(this.stage.options.threshold);
    const at = shown.findIndex(({ id }) => id === this.chosen);
    const track = shown[at < 0 ? (step > 0 ? 0 : shown.length - 1) : Math.min(Math.max(at + step, 0), shown.length - 1)];
    if (track) this.choose(track.id);
  }
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other); // doubtful places

const nameOf = (track) => (track ? `${track.name} ${track.id}` : "a deleted object");

function label(track) {
  const swatch = el("i", { class: "swatch" });
  swatch.style.background = track.colour;
  return [swatch, nameOf(track)];
}

/** The frame with the object that is nearest to another. */
function nearest(track, frame) {
  const frames = track.counts.flatMap((counts, t) => (counts === null ? [] : [t]));
  return frames.reduce((best, t) => (Math.abs(t - frame) < Math.abs(best - frame) ? t : best), frames[0]);
}

/** What has been done between two states, in words. */
function told(before, now) {
  const gone = before.ids.filter((id) => !now.ids.includes(id)).length;
  const more = gone > 1 ? ` (${count(gone, "object")})` : "";
  if (now.edits.length < before.edits.length) return `Undone: ${before.edits.at(-1)}`;
  return `Done: ${now.edits.at(-1)}${more}`;
}
