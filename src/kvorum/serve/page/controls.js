// Steers a run while it goes; forks a stored one.

import { OVER } from "./api.js";
import { find, on, place, say, submitted } from "./dom.js";
import { trait } from "./programs.js";

export class Controls {
  constructor(api, { failed, tell, shown }) {
    Object.assign(this, { api, failed, tell, shown });
    this.run = null;
    this.to = find("say-to");
    on("pause", () => this.pause());
    on("step", () => this.step());
    on("answer-now", () => this.answer());
    on("stop", () => this.stop());
    on("fork", () => this.fork());
    submitted(find("say-form"), () => this.say());
  }

  get live() {
    return Boolean(this.run) && !OVER.has(this.run.status);
  }

  /** Take up what the server says of the run; null for a trace that has no run. */
  update(run) {
    const before = this.run;
    this.run = run;
    const { live } = this;
    find("steer").hidden = !live;
    find("say-form").hidden = !live;
    find("fork").hidden = find("link").hidden = !run;
    const deaf = run && trait(run.program, "listens") === false; // only the answer can be asked for
    for (const field of find("say-form").elements) field.disabled = deaf;
    find("say-text").placeholder = deaf ? `${run.program} takes no words; ask for the answer` : "Say something into the run…";
    if (!run) return;
    const paused = run.status === "paused";
    say(find("pause"), paused ? "Continue" : "Pause");
    find("pause").ariaPressed = paused;
    if (before?.id === run.id && before.status !== run.status) {
      const how = run.outcome === "answered" ? ", with an answer" : run.outcome === "none" ? ", without an answer" : "";
      this.tell(run.error ? `The run has ${run.status}: ${run.error.message}` : `The run is ${run.status}${how}.`);
    }
  }

  /** The list of whom something can be said to. */
  offer(lanes, moment) {
    const names = lanes.filter((lane) => lane.left === null || lane.left > moment).map((lane) => lane.name);
    const key = names.join("\n");
    if (this.to.dataset.key === key) return;
    this.to.dataset.key = key;
    const chosen = this.to.value;
    this.to.replaceChildren(new Option("everybody", ""), ...names.map((name) => new Option(name, name)));
    this.to.value = names.includes(chosen) ? chosen : "";
  }

  async post(rest, body) {
    if (!this.run) return null;
    try {
      const reply = await this.api.post(this.api.run(this.run.id, rest), body);
      if (reply.object === "run" && reply.id === this.run.id) this.update(reply);
      return reply;
    } catch (error) {
      this.failed(error);
      return null;
    }
  }

  pause() {
    return this.live && this.post(this.run.status === "paused" ? "/resume" : "/pause");
  }

  step() {
    return this.live && this.post("/step", { ticks: 1 });
  }

  stop() {
    return this.live && this.post("/stop");
  }

  /** Ask something of the run, and say so once it is taken; whether it was. */
  async ask(command, words) {
    const taken = this.live && (await this.post("/commands", command));
    if (taken) this.tell(words);
    return taken;
  }

  answer() {
    return this.ask({ kind: "answer" }, "The answer is asked for.");
  }

  leave(worker) {
    return this.ask({ kind: "leave", worker }, `${worker} is asked to stop.`);
  }

  /** A person's word on a call: "approve" or "refuse", by the call's number. */
  decide(kind, number) {
    return this.ask({ kind, text: String(number) }, kind === "approve" ? "Approved." : "Refused.");
  }

  /** Put words into a worker's block, or into the history that all see. */
  async say() {
    const field = find("say-text");
    const text = field.value;
    if (!this.live || !text.trim()) return;
    const worker = this.to.value;
    const spaced = /^\s/.test(text) ? text : ` ${text}`;
    const command = worker ? { kind: "say", worker, text: spaced } : { kind: "share", text };
    const taken = await this.ask(command, `Said to ${worker || "everybody"}; it is taken before the next tick.`);
    if (taken && field.value === text) field.value = ""; // else more is being typed
  }

  /** Another run that is the same up to the tick that is shown, and its own from there. */
  async fork() {
    const made = await this.post("/fork", { tick: this.shown() });
    if (made) location.hash = place(made.id);
  }
}
