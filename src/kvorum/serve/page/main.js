// Which part is shown, and how the parts are tied together.

import { save } from "./answer.js";
import { Api } from "./api.js";
import { Compare } from "./compare.js";
import { Compose } from "./compose.js";
import { Controls } from "./controls.js";
import { Documents } from "./documents.js";
import { find, on, place, say } from "./dom.js";
import { Keys } from "./keys.js";
import { loadPrograms } from "./programs.js";
import { Runs } from "./runs.js";
import { Stage } from "./stage.js";
import { readTrace } from "./tracefile.js";

const PARTS = ["compose", "documents", "runs", "compare", "run"];
let following = null; // of the run that is followed
let local = null; // a trace from a file: {name, text}

const tell = (text) => say(find("status"), text);
function failed(error) {
  const box = find("trouble");
  box.hidden = !error;
  say(box, error ? error.message : "");
}

const api = new Api(askKey);
const controls = new Controls(api, { failed, tell, shown: () => stage.tick });
const stage = new Stage(controls, {
  say: (lane) => { find("say-to").value = lane.name; find("say-text").focus(); },
  leave: (lane) => controls.leave(lane.name),
});
const runs = new Runs(api, failed);
const compose = new Compose(api, async (request) => {
  const run = await api.post("/v1/runs", request);
  location.hash = place(run.id);
});

const documents = new Documents(api);
const compare = new Compare(api);

/** Ask for the server's key; null where none is given. */
function askKey() {
  const dialog = find("key");
  find("key-text").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes" ? find("key-text").value : null), { once: true });
  });
}

// -- routes

const focus = (id = "main") => find(id).focus({ preventScroll: true });

function show(part) {
  for (const each of PARTS) find(each).hidden = each !== part;
  find("transport").hidden = part !== "run";
  document.body.dataset.part = part;
  for (const link of document.querySelectorAll("nav [data-page]")) link.ariaCurrent = link.dataset.page === part ? "page" : null;
}

function route() {
  following?.abort();
  following = null;
  documents.leave();
  failed(null);
  tell("");
  compare.leave();
  const [, part, id, rest] = location.hash.split("/");
  if (part === "run" && id) follow(decodeURIComponent(id), /^\d+$/.test(rest) ? Number(rest) : null);
  else if (part === "file" && local) replay();
  else {
    const page = part === "compare" && rest ? part : part === "runs" || part === "documents" ? part : "compose";
    stage.close();
    show(page);
    document.title = `${{ compare: "Two runs · ", runs: "Runs · ", documents: "Documents · " }[page] || ""}kvorum`;
    if (page === "compare") compare.open([id, rest].map(decodeURIComponent)).catch(failed);
    else if (page === "runs") runs.load();
    else if (page === "compose") compose.load().catch(failed);
    focus({ documents: "document-text", compose: "problem" }[page]);
  }
}

/** Show a run of the server as long as it goes on; or as it stood at a tick. */
async function follow(id, tick) {
  const abort = new AbortController();
  following = abort;
  local = null;
  controls.update(null);
  stage.open({ follow: true, tick });
  try {
    const [run] = await Promise.all([api.get(api.run(id)), loadPrograms(api)]);
    if (abort.signal.aborted) return;
    controls.update(run);
    show("run");
    document.title = `${run.problem.slice(0, 50)} · kvorum`;
    focus();
    tell(`The run is ${run.status}.`);
    await api.follow(id, {
      signal: abort.signal,
      take: (event) => stage.feed(event),
      status: (now) => { controls.update(now); stage.draw(); },
      lost: (lost) => failed(lost ? new Error("The connection is lost; trying again…") : null),
    });
    if (abort.signal.aborted) return;
    controls.update(await api.get(api.run(id)));
    failed(null);
    stage.draw();
  } catch (error) {
    if (abort.signal.aborted) return;
    failed(error);
    if (controls.run) return;
    show("runs"); // there is no such run
    runs.load();
  }
}

/** Show the trace of a file from its beginning. */
function replay() {
  controls.update(null);
  stage.open({ follow: false });
  show("run");
  document.title = `${local.name} · kvorum`;
  local.events.every((event, at) => {
    try {
      stage.feed(event);
      return true;
    } catch {
      failed(new Error(`Event ${at + 1} of ${local.name} cannot be shown: it lacks what such events have. All before it is here.`));
      return false;
    }
  });
  focus();
  tell(`${local.name} is open. Play, or move the slider.`);
}

async function open(file) {
  try {
    const { events, text } = await readTrace(file);
    await loadPrograms(api).catch(() => null); // without, a trace is shown all the same
    local = { name: file.name, events, text };
    if (location.hash === "#/file") route();
    else location.hash = "#/file";
  } catch (error) {
    failed(error);
  }
}

/** Hand the trace to the person as a file. */
async function download() {
  if (!stage.story) return;
  try {
    const id = controls.run?.id;
    const text = id ? await api.trace(id) : local.text;
    save(id ? `${id}.jsonl` : local.name, "application/x-ndjson", text);
  } catch (error) {
    failed(error);
  }
}

/** Copy where the tick that is shown is to be found. */
async function link() {
  const id = controls.run?.id;
  if (!id) return;
  const there = new URL(place(id, stage.tick), location.href);
  history.replaceState(null, "", there);
  await navigator.clipboard.writeText(there.href).catch(() => null); // without leave, it stands in the address
  tell(`The address of tick ${stage.tick} is copied.`);
}

// -- what the person does

const keys = find("keys");
on("keys-button", () => keys.showModal());
on("open", () => find("file").click());
find("file").addEventListener("change", () => {
  if (find("file").files.length) open(find("file").files[0]);
  find("file").value = "";
});
on("download", download);
on("link", link);
on("latest", () => stage.timeline.seek(stage.timeline.last));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const files = [...event.dataTransfer.files];
  if (files.length && !find("documents").hidden) documents.take(files);
  else if (files.length) open(files[0]);
});
addEventListener("hashchange", route);
addEventListener("resize", () => (find("compare").hidden ? stage.draw() : compare.render()));

const staged = (act) => (event) => (stage.story ? act(event) : false);
const { timeline } = stage;
new Keys({
  " ": staged(() => (controls.live && timeline.follows ? controls.pause() : timeline.toggle())),
  ".": staged(() => (controls.live && timeline.follows ? controls.step() : timeline.move(1))),
  ",": staged(() => timeline.move(-1)),
  ArrowLeft: staged((event) => timeline.move(event.shiftKey ? -10 : -1)),
  ArrowRight: staged((event) => timeline.move(event.shiftKey ? 10 : 1)),
  Home: staged(() => timeline.seek(0)),
  End: staged(() => timeline.seek(timeline.last)),
  digit: staged((event) => stage.columns.focus(Number(event.key) - 1)),
  i: () => (controls.live ? find("say-text").focus() : false),
  a: () => (controls.live ? controls.answer() : false),
  X: () => (controls.live ? controls.stop() : false),
  d: staged(download),
  "/": staged(() => find("search-text").focus()),
  o: () => find("open").click(),
  r: () => { location.hash = "#/runs"; },
  n: () => { location.hash = "#/"; },
  q: () => { location.hash = "#/documents"; },
  "?": () => keys.showModal(),
});

route();
export { stage };
