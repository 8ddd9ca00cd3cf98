// One run's story, live or from a file, and everything that shows it.

import { Acts } from "./acts.js";
import { Answer } from "./answer.js";
import { Approvals } from "./approvals.js";
import { Attention } from "./attention.js";
import { Columns } from "./columns.js";
import { amount, find, say } from "./dom.js";
import { Exchange } from "./exchange.js";
import { harmless } from "./lane.js";
import { ViewMap } from "./map.js";
import { Meters } from "./meters.js";
import { Search } from "./search.js";
import { Story } from "./story.js";
import { Timeline } from "./timeline.js";

export class Stage {
  constructor(controls, actions) {
    this.controls = controls;
    this.columns = new Columns(find("columns"), { ...actions, reveal: (mark) => this.columns.reveal(mark) });
    this.map = new ViewMap(find("map"));
    this.exchange = new Exchange(find("exchange"), find("exchange-table"), find("exchange-note"));
    this.meters = new Meters(find("meters"));
    this.timeline = new Timeline(() => this.draw());
    this.story = null;
    this.waiting = false;
    this.wanted = null; // the tick to show as soon as it is there
    this.answer = new Answer();
    this.approvals = new Approvals(find("approvals"), { answer: (kind, number) => controls.decide(kind, number), tell: controls.tell });
    this.attention = new Attention();
    this.attention.span.addEventListener("change", () => this.draw());
    this.acts = new Acts(find("acts"));
    this.search = new Search((lane, paragraph, moment) => this.bring(lane, paragraph, moment));
  }

  /** Begin an empty story. `follow`: show the newest moment; `tick`: stop at it once there is more. */
  open({ follow, tick = null }) {
    this.story = new Story();
    this.wanted = tick;
    this.search.open(this.story);
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
    if (this.wanted !== null && ((this.story?.ticks.last || 0) > this.wanted || this.story?.end)) this.reach(this.wanted);
    this.draw();
  }

  get tick() {
    return this.story?.ticks.at(this.timeline.moment, 0) ?? 0;
  }

  /** Show the run as it stood after `tick` ticks. */
  reach(tick) {
    this.wanted = null;
    const { story, timeline } = this;
    const at = story.stops.findIndex((moment) => story.ticks.at(moment, 0) >= tick);
    timeline.seek(at < 0 ? timeline.last : at);
  }

  /** Bring a paragraph into sight; a moment that is later than the one shown is gone to. */
  bring(lane, paragraph, moment) {
    const { story, timeline } = this;
    if (moment > timeline.moment) timeline.seek(story.stops.findIndex((stop) => stop >= moment));
    this.render();
    this.columns.bring(lane, paragraph);
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
    this.answer.render(story, moment);
    this.approvals.render(story, live);
    this.columns.render(story, moment, { live: live && timeline.follows });
    this.map.render(story, moment);
    this.acts.render(story, moment);
    this.exchange.render(story, moment);
    this.attention.render(story, moment);
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
    say(find("run-facts"), [this.story.facts(run), run?.parent ? `forked at tick ${amount(run.parent.tick)}` : ""].filter(Boolean).join(" · "));
    const status = run?.status ?? (this.story.end ? "trace" : "unfinished trace");
    const chip = find("run-chip");
    say(chip, status);
    chip.className = `chip ${run?.status ?? "trace"}`;
  }
}
