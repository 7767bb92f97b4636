// Enlarge and move a picture: wheel, two fingers, drag, buttons.

import { el } from "/page/dom.js";

const MOST = 16, STEP = 1.5;
const SLACK = 5; // pixels that a pointer may move and still click

export class Zoom {
  constructor(stage) {
    this.stage = stage;
    this.wheel = false; // whether a plain wheel enlarges; it scrolls the page otherwise
    this.drawing = false; // whether a single pointer draws
    this.onpinch = null; // called when a second finger comes
    this.pointers = new Map();
    this.moved = false;
    const { element } = stage;
    element.addEventListener("wheel", (event) => this.turned(event), { passive: false });
    element.addEventListener("pointerdown", (event) => this.down(event));
    element.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) element.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    element.addEventListener("click", (event) => this.moved && !this.buttons.contains(event.target) && event.stopImmediatePropagation(), { capture: true });
    const button = (text, name, keys, action) => el("button", { class: "round", "aria-label": name, title: `${name} (${keys})`, textContent: text, onclick: action });
    this.fitted = button("Fit", "Whole picture", "F", () => this.fit());
    this.buttons = el("div", { class: "zoom", role: "group", "aria-label": "Zoom" },
      button("−", "Smaller", "−", () => this.by(1 / STEP)), button("+", "Larger", "+", () => this.by(STEP)), this.fitted);
    this.buttons.addEventListener("click", (event) => event.stopPropagation());
    this.buttons.addEventListener("pointerdown", (event) => event.stopPropagation());
    element.append(this.buttons);
    this.set({ scale: 1, x: 0, y: 0 });
  }

  set({ scale, x, y }) {
    const { clientWidth, clientHeight } = this.stage.element, within = (value, side) => Math.min(Math.max(value, side * (1 - scale)), 0);
    Object.assign(this.stage.view, { scale, x: within(x, clientWidth), y: within(y, clientHeight) });
    this.stage.element.classList.toggle("enlarged", scale > 1);
    this.fitted.hidden = scale === 1;
    this.stage.draw();
  }

  fit() {
    this.set({ scale: 1, x: 0, y: 0 });
  }

  /** Enlarges by a factor; what is at a point of the stage stays there. */
  by(factor, [left, top] = [this.stage.element.clientWidth / 2, this.stage.element.clientHeight / 2]) {
    const { scale, x, y } = this.stage.view, next = Math.min(Math.max(scale * factor, 1), MOST);
    this.set({ scale: next, x: left - ((left - x) / scale) * next, y: top - ((top - y) / scale) * next });
  }

  pan(right, down) {
    const { scale, x, y } = this.stage.view;
    this.set({ scale, x: x + right, y: y + down });
  }

  /** Moves the picture so that a pixel of the video is seen. */
  reveal([x, y]) {
    const { clientWidth: width, clientHeight: height } = this.stage.element, { result, view } = this.stage, edge = 16;
    const left = (x / result.width) * width * view.scale + view.x, top = (y / result.height) * height * view.scale + view.y;
    const beyond = (at, side) => Math.min(at - edge, 0) + Math.max(at - side + edge, 0);
    if (view.scale > 1) this.pan(-beyond(left, width), -beyond(top, height));
  }

  turned(event) {
    if (!event.ctrlKey && !this.wheel) return;
    event.preventDefault();
    this.by(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), this.place(event));
  }

  place({ clientX, clientY }) {
    const { left, top } = this.stage.element.getBoundingClientRect();
    return [clientX - left, clientY - top];
  }

  down(event) {
    if (event.isPrimary) {
      this.pointers.clear(); // one may have been lifted elsewhere
      this.moved = false;
    }
    this.pointers.set(event.pointerId, { at: this.place(event), from: this.place(event), button: event.button });
    if (this.pointers.size === 2) {
      this.moved = true;
      this.onpinch?.();
    }
  }

  move(event) {
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer || !event.buttons) return;
    const [x, y] = pointer.at, now = this.place(event);
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1].at;
      const span = ([a, b]) => Math.max(Math.hypot(a - other[0], b - other[1]), 1), middle = ([a, b]) => [(a + other[0]) / 2, (b + other[1]) / 2];
      this.by(span(now) / span([x, y]), middle(now));
      this.pan(middle(now)[0] - middle([x, y])[0], middle(now)[1] - middle([x, y])[1]);
    } else if (this.stage.view.scale > 1 && (!this.drawing || pointer.button !== 0)) {
      this.moved ||= Math.hypot(now[0] - pointer.from[0], now[1] - pointer.from[1]) > SLACK;
      if (this.moved) this.pan(now[0] - x, now[1] - y);
    }
    pointer.at = now;
  }

  /** Keys that enlarge; returns whether it was one. */
  key({ key }) {
    const action = { "+": () => this.by(STEP), "=": () => this.by(STEP), "-": () => this.by(1 / STEP), f: () => this.fit() }[key];
    action?.();
    return Boolean(action);
  }
}
