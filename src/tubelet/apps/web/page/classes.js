// Which classes are to be found: one field, whose text stays while the browser's tab is open.

import { el } from "/page/dom.js";

const KEY = "classes";

/** The names that were chosen; none stands for all classes. */
export const chosen = () => (sessionStorage.getItem(KEY) ?? "").split(",").map((name) => name.trim()).filter(Boolean);

/** The field, with the model's classes to choose from; `changed` is called when the text has been changed. */
export function classesField(model, changed = () => {}) {
  const names = el("datalist", { id: "class-names" }, ...model.classes.map((name) => el("option", { value: name })));
  const input = el("input", { type: "text", id: "classes", list: "class-names", placeholder: "all", autocomplete: "off", value: chosen().join(", ") });
  input.addEventListener("change", () => { sessionStorage.setItem(KEY, input.value); changed(); });
  return el("section", { class: "classes" }, el("label", { htmlFor: "classes", textContent: "Classes" }), input, names);
}
