// The server's side of the page.

export class ApiError extends Error {
  constructor(status, line) {
    super(line);
    this.status = status;
  }
}

async function send(method, path, body, more = {}) {
  const options = { method, ...(body && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }), ...more };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new ApiError(0, "The server does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new ApiError(answer.status, sentence(told.error ?? "The server refused."));
}

async function ask(method, path, body, more) {
  const answer = await send(method, path, body, more);
  if (answer.status === 204) return null;
  return answer.json().catch(() => { throw new ApiError(0, "The server gave no sensible answer."); });
}

export const sentence = (line) => line.charAt(0).toUpperCase() + line.slice(1) + (/[.!?]$/.test(line) ? "" : ".");

export const about = () => ask("GET", "/api/about");
export const videos = () => ask("GET", "/api/videos");
export const example = () => ask("POST", "/api/example");
export const removeVideo = (id) => ask("DELETE", `/api/videos/${id}`);
export const submit = (job) => ask("POST", "/api/jobs", job);
export const job = (id) => ask("GET", `/api/jobs/${id}`);
export const cancel = (id) => ask("DELETE", `/api/jobs/${id}`);
export const result = (id) => ask("GET", `/api/jobs/${id}/result`);
export const attention = (video, point) => ask("POST", `/api/videos/${video}/attention`, point);
export const filmAddress = (video) => `/api/videos/${video}/film`;
const fileAddress = (job, name, wish) => `/api/jobs/${job}/files/${name}?${new URLSearchParams(wish)}`;
export const prepareFile = async (job, name, wish) => {
  const { bytes } = await ask("POST", fileAddress(job, name, wish));
  return { address: fileAddress(job, name, wish), bytes };
};

/** Sends a picture of a camera, a JPEG; resolves to a result of one frame. */
export async function lookAt(jpeg, { session, model, classes }) {
  const wish = new URLSearchParams([["session", session], ["model", model], ...classes.map((name) => ["classes", name])]);
  const answer = await send("POST", `/api/camera?${wish}`, null, { body: jpeg });
  return answer.json();
}

export const leaveCamera = (session) => ask("DELETE", `/api/camera?session=${session}`, null, { keepalive: true }).catch(() => {});

export const STALE = 409; // another tab was faster
export const edits = (job) => ask("GET", `/api/jobs/${job}/edits`);
export const edit = (job, revision, change) => ask("POST", `/api/jobs/${job}/edits?revision=${revision}`, change);
export const undo = (job, revision) => ask("POST", `/api/jobs/${job}/undo?revision=${revision}`);
export const redo = (job, revision) => ask("POST", `/api/jobs/${job}/redo?revision=${revision}`);
export const doubts = (job, threshold) => ask("GET", `/api/jobs/${job}/doubts?threshold=${threshold.toFixed(2)}`);
export const see = (job, frames) => ask("PUT", `/api/jobs/${job}/seen`, { frames }, { keepalive: true });

/** Has the model follow an object; `heard` is called for each frame. Resolves to the state, as an edit does. */
export async function followObject(job, wish, heard) {
  const answer = await send("POST", `/api/jobs/${job}/follow`, wish);
  for await (const told of lines(answer)) {
    if (told.error) throw new ApiError(STALE, sentence(told.error));
    if (told.state) return told.state;
    heard(told);
  }
  throw new ApiError(0, "The connection broke off. What was found so far is kept as an edit.");
}

/** The lines of JSON of an answer, as they come; ends where the connection does. */
async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read().catch(() => ({ done: true }));
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

export const stopFollowing = (job) => ask("DELETE", `/api/jobs/${job}/follow`);

export const trainings = () => ask("GET", "/api/trainings");
export const teach = (wish) => ask("POST", "/api/trainings", wish);
export const stopTraining = (id) => ask("POST", `/api/trainings/${id}/stop`);
export const continueTraining = (id) => ask("POST", `/api/trainings/${id}/continue`);
export const removeTraining = (id) => ask("DELETE", `/api/trainings/${id}`);
export const trainingCurve = (id) => ask("GET", `/api/trainings/${id}/curve`);
export const trainingPicture = (id, side, number) => `/api/trainings/${id}/pictures/${side}/${number}`;
export const sharedLink = (job) => ask("GET", `/api/jobs/${job}/link`);
export const share = (job) => ask("POST", `/api/jobs/${job}/link`);
export const withdraw = (job) => ask("DELETE", `/api/jobs/${job}/link`);
export const sharedResult = (word) => ask("GET", `/api/shared/${word}/result`);
export const sharedFilmAddress = (word) => `/api/shared/${word}/film`;
export const models = () => ask("GET", "/api/models");
export const removeModel = (id) => ask("DELETE", `/api/models/${id}`);
export const uploadModel = (file, progress) => upload(file, progress, "/api/models");
export const modelAddress = (id) => `/api/models/${id}/file`;

/** Sends a file as it is; `progress` gets shares 0..1. Returns { done, abort }. */
export function upload(file, progress, path = "/api/videos") {
  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onerror = () => reject(new ApiError(0, "The connection broke off during the upload."));
    request.onabort = () => reject(new ApiError(-1, "Cancelled."));
    request.onload = () => {
      let told = {};
      try { told = JSON.parse(request.responseText); } catch { /* told below */ }
      if (request.status === 201) resolve(told);
      else reject(new ApiError(request.status, sentence(told.error ?? request.responseText ?? "The server refused.")));
    };
    request.open("POST", path);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.setRequestHeader("X-Name", encodeURIComponent(file.name.slice(0, 200)));
    request.send(file);
  });
  return { done, abort: () => request.abort() };
}

/** Has the server fetch a video; `progress` gets bytes, and all of them or null. Returns { done, abort }, as upload does. */
export function fetchVideo(address, progress) {
  const leaving = new AbortController();
  const fetched = async () => {
    const answer = await send("POST", "/api/addresses", { address }, { signal: leaving.signal });
    for await (const told of lines(answer)) {
      if (told.error) throw new ApiError(422, sentence(told.error));
      if (told.video) return told.video;
      progress(told.done, told.total);
    }
    throw new ApiError(0, "The connection broke off.");
  };
  const done = fetched().catch((error) => { throw leaving.signal.aborted ? new ApiError(-1, "Cancelled.") : error; });
  return { done, abort: () => leaving.abort() };
}

const AGAIN = 3000; // milliseconds, after the server refused to tell

/** Calls `changed(job)` until the job, or training, is over; returns a function that stops listening. */
export function follow(id, changed, kind = "jobs") {
  let source;
  let timer;
  let stopped = false;

  function listen() {
    if (stopped) return;
    source = new EventSource(`/api/${kind}/${id}/events`);
    source.onmessage = (event) => {
      const job = JSON.parse(event.data);
      if (!["queued", "running"].includes(job.state)) source.close();
      changed(job);
    };
    source.onerror = () => { // a browser connects again by itself, but not after a refusal
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(again, AGAIN);
    };
  }

  function again() {
    ask("GET", `/api/${kind}/${id}`).then(listen, (error) => {
      if (error.status === 404) changed({ id, state: "gone" });
      else listen();
    });
  }

  listen();
  return () => { stopped = true; clearTimeout(timer); source.close(); };
}
