// A link that shows one result to whoever has it, until it is withdrawn.

import * as api from "/page/api.js";
import { el, notify } from "/page/dom.js";

/** A button that makes the link; beside it the link, and the way to withdraw it. */
export function shareField(job) {
  const share = el("button", { class: "button", id: "share", textContent: "Share a link", onclick: () => change(api.share) });
  const link = el("input", { type: "text", readOnly: true, "aria-label": "Link to this result, for reading alone", onfocus: () => link.select() });
  const withdraw = el("button", { class: "button", id: "withdraw", textContent: "Withdraw", onclick: () => change(api.withdraw) });
  const shown = el("span", { class: "fields", hidden: true }, link, withdraw);

  function show(answer) {
    link.value = answer?.address ? new URL(answer.address, location.href).href : "";
    shown.hidden = !link.value;
    share.hidden = !shown.hidden;
  }

  async function change(act) {
    try {
      show(await act(job.id));
      if (!shown.hidden) link.focus();
    } catch (error) {
      notify(error.message);
    }
  }

  api.sharedLink(job.id).then(show, () => {});
  return el("div", { class: "share" }, share, shown);
}
