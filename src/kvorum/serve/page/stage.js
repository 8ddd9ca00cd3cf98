// What is on the stage: one run's story, live from the server or from a file, and everything that shows it.

import { Columns } from "./columns.js";
import { amount, find, make, say } from "./dom.js";
import { Exchange } from "./exchange.js";
import { harmless } from "./lane.js";
import { markdown } from "./markdown.js";
import { ViewMap } from "./map.js";
import { Meters } from "./meters.js";
import { Story } from "./story.js";
import { Timeline } from "./timeline.js";

const OUTCOMES = { answered: "found by the workers", forced: "asked for at the end", cut: "cut at the budget", none: "none" };

export class Stage {
  constructor(controls, actions) {
    this.controls = controls;
    this.columns = new Columns(find("columns"), { ...actions, reveal: (mark) => this.columns.reveal(mark) });
    this.map = new ViewMap(find("map"));
    this.exchange = new Exchange(find("exchange"), find("exchange-table"), find("exchange-note"));
    this.meters = new Meters({ bar: find("budget-bar"), label: find("budget-label"), pace: find("pace"), ledger: find("ledger") });
    this.timeline = new Timeline({
      slider: find("slider"), label: find("time-label"), play: find("play"), speed: find("speed"),
      marks: find("marks"), list: find("remarks"), changed: () => this.draw(),
    });
    this.story = null;
    this.waiting = false;
    this.answered = null; // what the answer's elements were made of
    find("answer-copy").addEventListener("click", async () => {
      await navigator.clipboard.writeText(harmless(this.story.end.answer ?? ""));
      say(find("answer-copy"), "copied");
      setTimeout(() => say(find("answer-copy"), "copy"), 2000);
    });
  }

  /** Begin with an empty story. `follow`: show the newest moment as events come. */
  open({ follow }) {
    this.story = new Story();
    for (const part of [this.columns, this.map, this.exchange, this.meters]) part.clear();
    this.timeline.open(this.story, { follow });
    find("answer").hidden = true;
    say(find("run-problem"), "");
    say(find("run-facts"), "");
    this.draw();
  }

  close() {
    this.timeline.halt();
    this.story = null;
  }

  feed(event) {
    this.story?.feed(event);
    this.draw();
  }

  get tick() {
    return this.story?.ticks.at(this.timeline.moment, 0) ?? 0;
  }

  /** Draw once, before the next frame. */
  draw() {
    if (this.waiting || !this.story) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (this.story) this.render();
    });
  }

  render() {
    const { story, timeline, controls } = this;
    const { moment } = timeline;
    const { live } = controls;
    this.head();
    this.answer(moment);
    this.columns.render(story, moment, { live: live && timeline.follows });
    this.map.render(story, moment);
    this.exchange.render(story, moment);
    this.meters.render(story, moment);
    timeline.render(live);
    controls.offer([...story.lanes.values()], story.now);
    find("latest").hidden = timeline.follows;
    say(find("remark-count"), `(${story.moments.length})`);
  }

  head() {
    const { start } = this.story;
    const { run } = this.controls;
    say(find("run-problem"), harmless(start?.task.prompt ?? run?.problem ?? ""));
    const workers = start?.workers.length ?? run?.workers.length ?? 0;
    const facts = [
      start?.program ?? run?.program, `${workers} worker${workers === 1 ? "" : "s"}`, start?.model.name ?? run?.model,
      start ? `seed ${start.seed}` : "", run?.parent ? `forked at tick ${amount(run.parent.tick)}` : "",
    ];
    say(find("run-facts"), facts.filter(Boolean).join(" · "));
    const status = run?.status ?? (this.story.end ? "trace" : "unfinished trace");
    const chip = find("run-chip");
    say(chip, status);
    chip.className = `chip ${run?.status ?? "trace"}`;
  }

  answer(moment) {
    const { end, ended } = this.story;
    const shown = end !== null && ended <= moment;
    find("answer").hidden = !shown;
    if (!shown) return;
    if (this.answered !== end) {
      this.answered = end;
      find("answer-text").replaceChildren(...(end.answer === null ? ["none"] : markdown(harmless(end.answer))));
      find("tally").replaceChildren(...tally(this.story.votes));
    }
    find("answer-copy").hidden = end.answer === null;
    const how = end.spent === "asked" ? "asked for while the run went on" : OUTCOMES[end.outcome] || end.outcome;
    say(find("answer-how"), how);
  }
}

/** The votes, the answer with the most first. */
function tally(votes) {
  const counts = new Map();
  for (const answer of Object.values(votes || {})) counts.set(answer, (counts.get(answer) || 0) + 1);
  const most = Object.values(votes || {}).length;
  return [...counts].sort((a, b) => b[1] - a[1]).map(([answer, count]) => make(
    "li", {}, make("span", {}, answer ? harmless(answer).slice(0, 200) : "no answer"),
    make("meter", { min: 0, max: most, value: count, aria: { hidden: true } }), make("strong", {}, `${count} of ${most}`),
  ));
}
