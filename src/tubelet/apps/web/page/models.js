// Which model looks at a video: one field, shown where there are several, whose choice stays while the tab is open.

import { chosen } from "/page/classes.js";
import { el } from "/page/dom.js";

const KEY = "model";

/** The model that was chosen, as the server describes it; the first one if none was. */
export const chosenModel = (about) => about.models.find((model) => model.name === sessionStorage.getItem(KEY)) ?? about.models[0];

/** What is asked of the server for a video: the chosen model and classes. */
export function wishFor(film, about) {
  const classes = chosen();
  return { video: film.id, model: chosenModel(about).name, classes: classes.length ? classes : null };
}

/** The field; `changed` is called when another model was chosen. */
export function modelField(about, changed = () => {}) {
  if (about.models.length < 2) return "";
  const select = el("select", { id: "model" }, ...about.models.map((model) => el("option", { value: model.name, textContent: model.name })));
  select.value = chosenModel(about).name;
  select.addEventListener("change", () => { sessionStorage.setItem(KEY, select.value); changed(); });
  return el("section", { class: "classes" }, el("label", { htmlFor: "model", textContent: "Model" }), select);
}
