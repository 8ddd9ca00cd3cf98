// Two runs side by side, as they stood at the same tick.

import { outcome, written } from "./answer.js";
import { Columns } from "./columns.js";
import { find, make, place, say } from "./dom.js";
import { harmless } from "./lane.js";
import { Meters } from "./meters.js";
import { Story } from "./story.js";
import { parseTrace } from "./tracefile.js";

export class Compare {
  constructor(api) {
    this.api = api;
    this.root = find("compare-sides");
    this.sides = [];
    this.slider = find("compare-slider");
    this.slider.addEventListener("input", () => this.render());
  }

  /** Show two runs of the server, at their ends. Throws where one is not there. */
  async open(ids) {
    this.leave();
    const traces = await Promise.all(ids.map((id) => this.api.trace(id)));
    this.sides = ids.map((id, at) => new Side(this.root, id, parseTrace(traces[at], id), at));
    this.slider.max = Math.max(1, ...this.sides.map((side) => side.ticks));
    this.slider.value = this.slider.max;
    const [a, b] = this.sides.map((side) => side.story.start.task.prompt);
    find("compare-other").hidden = a === b;
    this.render();
  }

  leave() {
    this.sides = [];
    this.root.replaceChildren();
  }

  render() {
    const tick = Number(this.slider.value);
    const over = tick >= Number(this.slider.max);
    const words = over ? "at the end" : `at tick ${tick}`;
    say(find("compare-label"), words);
    this.slider.ariaValueText = words;
    for (const side of this.sides) side.render(over ? Infinity : tick);
  }
}

class Side {
  constructor(root, id, events, at) {
    const prefix = `side-${at}`;
    this.story = new Story();
    for (const event of events) this.story.feed(event);
    this.ticks = this.story.ticks.last || 0;
    const { start } = this.story;
    this.answer = make("div", "written");
    this.how = make("p", "facts");
    const meters = make("div", "meters");
    this.meters = new Meters(meters);
    const columns = make("div", "columns");
    root.append(make(
      "section", { aria: { labelledby: `${prefix}-title` } },
      make("h2", { id: `${prefix}-title` }, at ? "Second: " : "First: ", make("a", { href: place(id) }, this.story.facts())),
      make("p", "problem", harmless(start.task.prompt)),
      make("div", "outcome", this.answer, this.how),
      meters, columns,
    ));
    this.columns = new Columns(columns, { reveal: (mark) => this.columns.reveal(mark) }, prefix);
  }

  /** As it stood after `tick` ticks. */
  render(tick) {
    const { story } = this;
    const at = story.ticks.values.findIndex((value) => value > tick);
    const moment = at < 0 ? story.now : Math.max(0, story.ticks.moments[at] - 1);
    const { end } = story;
    const over = end !== null && story.ended <= moment;
    if (this.over !== over) {
      this.over = over;
      this.answer.replaceChildren(...(over ? written(end.answer) : []));
    }
    say(this.how, over ? `answer: ${outcome(end)}` : end === null && at < 0 ? "has not ended" : "no answer yet");
    this.columns.render(story, moment, { live: false });
    this.meters.render(story, moment);
  }
}
