// One model's run over one video: from the wish to the result, with its progress.

import * as api from "/page/api.js";
import { count, duration, el } from "/page/dom.js";
import { Result } from "/page/masks.js";

const STAGES = { starting: "Starting", preparing: "Preparing for the browser", segmenting: "Finding objects" };

/** A card with a title, a bar and a way to cancel. */
export class ProgressCard {
  constructor(title, oncancel, heading = "h1") {
    this.bar = el("progress", { max: 1, "aria-label": title });
    this.line = el("p", { class: "soft", role: "status", textContent: "…" });
    this.button = el("button", { class: "button", textContent: "Cancel", onclick: oncancel });
    this.element = el("section", { class: "card progress" }, el(heading, { textContent: title }), this.bar, this.line, this.button);
  }

  set(share, line) {
    if (share === null) this.bar.removeAttribute("value"); else this.bar.value = share;
    if (this.line.textContent !== line) this.line.textContent = line;
  }
}

/** The lines of a card for a job as the server describes it. */
export function describe(job) {
  if (job.state === "queued" && job.full) return [null, "Waiting: the server's disk is full"];
  if (job.state === "queued") return [null, job.ahead ? `Waiting: ${count(job.ahead, "video")} before this one` : "Waiting"];
  if (!job.total) return [null, STAGES.starting];
  const parts = [STAGES[job.stage], `${job.done.toLocaleString("en")} of ${count(job.total, "frame")}`];
  if (job.rate) parts.push(`${job.rate < 10 ? job.rate.toFixed(1) : Math.round(job.rate)} frames/s`);
  if (job.left !== null && job.done < job.total) parts.push(`about ${duration(job.left)} left`);
  return [job.done / job.total, parts.join(" · ")];
}

export class Cancelled extends Error {}

/** Runs a job in `host`; see `finish`. */
export const run = async (host, wish, ...more) => finish(host, await api.submit(wish), ...more);

/** Shows the progress of a job in `host`; resolves to { job, result }. `signal` leaves it running unseen. */
export async function finish(host, job, title, signal, heading) {
  if (job.state !== "done") {
    let cancelled = false;
    const card = new ProgressCard(title, () => { cancelled = true; card.button.disabled = true; api.cancel(job.id).catch(() => {}); }, heading);
    host.replaceChildren(card.element);
    job = await new Promise((resolve) => {
      const stop = api.follow(job.id, (now) => {
        if (["queued", "running"].includes(now.state)) card.set(...(cancelled ? [null, "Cancelling"] : describe(now)));
        else resolve(now);
      });
      signal.addEventListener("abort", () => { stop(); resolve({ state: "left" }); });
    });
  }
  if (job.state === "gone" || job.state === "left") throw new Cancelled();
  if (job.state === "failed") throw new api.ApiError(422, api.sentence(job.error));
  const result = new Result(await api.result(job.id));
  if (signal.aborted) throw new Cancelled();
  return { job, result };
}
