// The slider: any moment of a run, and playing from it. At its end it follows what still comes.

import { clock, find, hue, make, on, say } from "./dom.js";

const PAUSE = 1.5; // seconds that a long forward pass takes at most when played

export class Timeline {
  constructor(changed) {
    this.changed = changed;
    for (const part of ["slider", "play", "speed", "marks"]) this[part] = find(part);
    [this.label, this.list] = [find("time-label"), find("remarks")];
    this.clear();
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    on("play", () => this.toggle());
  }

  clear() {
    this.story = null;
    this.stop = 0; // index into story.stops
    this.follows = true;
    this.told = 0;
    this.timer = null;
    this.playing = false;
    this.marks.replaceChildren();
    this.list.replaceChildren();
  }

  open(story, { follow }) {
    this.halt();
    this.clear();
    this.story = story;
    this.follows = follow;
    this.stop = follow ? this.last : 0;
  }

  get last() {
    return this.story ? this.story.stops.length - 1 : 0;
  }

  /** The moment that is shown. */
  get moment() {
    if (!this.story) return 0;
    return this.follows ? this.story.now : this.story.stops[Math.min(this.stop, this.last)];
  }

  seek(stop, { halt = true } = {}) {
    if (halt) this.halt();
    this.stop = Math.max(0, Math.min(stop, this.last));
    this.follows = this.stop === this.last;
    this.changed();
  }

  move(by) {
    this.seek((this.follows ? this.last : this.stop) + by);
  }

  // -- playing

  toggle() {
    if (this.playing) this.halt();
    else this.start();
    this.changed();
  }

  start() {
    if (!this.story) return;
    if (this.follows || this.stop >= this.last) this.seek(0);
    this.playing = true;
    this.schedule();
  }

  halt() {
    clearTimeout(this.timer);
    this.playing = false;
  }

  /** Wait as long as the run did, by the speed; several stops at once where they are too near to see. */
  schedule() {
    const { story } = this;
    const speed = Number(this.speed.value);
    let next = this.stop;
    let seconds = 0;
    do {
      const before = story.clock.at(story.stops[next], 0);
      next += 1;
      seconds += Math.min(PAUSE, Math.max(0, story.clock.at(story.stops[next], before) - before)) / speed;
    } while (seconds < 0.03 && next < this.last);
    this.timer = setTimeout(() => {
      this.seek(next, { halt: false });
      if (this.follows) {
        this.halt();
        this.changed();
      } else this.schedule();
    }, 1000 * seconds);
  }

  // -- drawing

  render(live) {
    const { story } = this;
    if (!story) return;
    if (this.follows) this.stop = this.last;
    this.slider.max = Math.max(1, this.last);
    this.slider.value = this.stop;
    const { moment } = this;
    const words = `tick ${story.ticks.at(moment, 0)} of ${story.ticks.last || 0}, ${clock(story.clock.at(moment, 0))}`;
    say(this.label, words);
    this.slider.ariaValueText = words;
    this.play.hidden = this.speed.hidden = live && this.follows;
    say(this.play, this.playing ? "Hold" : "Play");
    this.remarks(moment);
  }

  /** Marks over the slider and the list of moments; they are placed anew as the run grows. */
  remarks(moment) {
    const { story } = this;
    for (; this.told < story.moments.length; this.told += 1) {
      const remark = story.moments[this.told];
      const go = () => this.seek(remark.stop);
      const mark = make("span", `${remark.kind} ${hue(remark.lane)}`);
      const button = make("button", { class: "quiet", on: { click: go } }, make("b", "", remark.kind), ` ${remark.text}`);
      this.marks.append(mark);
      this.list.append(make("li", { class: hue(remark.lane), data: { kind: remark.kind } }, button));
    }
    story.moments.forEach((remark, at) => {
      this.marks.children[at].style.left = `${(100 * remark.stop) / Math.max(1, this.last)}%`;
      this.list.children[at].classList.toggle("later", remark.moment > moment);
    });
  }
}
