// The map of views: a row per worker, in it the blocks that it sees, in order, as wide as their tokens; what stands at
// the same positions, one under the other.

import { held, hue, make, say } from "./dom.js";
import { Motion } from "./motion.js";

const STEP = 1.3; // the scale grows in steps of this, so that it does not creep with each token
const LABEL = 46; // pixels that a name needs
const LEVEL = 13; // pixels that each of several at the same positions has

export class ViewMap {
  constructor(root) {
    this.root = root;
    this.motion = new Motion(root);
    this.clear();
  }

  clear() {
    this.rows = new Map();
    this.scale = 64;
    this.moment = 0;
    this.root.replaceChildren();
  }

  render(story, moment) {
    const views = [...story.lanes.values()].map((lane) => [lane, spans(story.view(lane.name, moment))]);
    const longest = Math.max(1, ...views.map(([, items]) => end(items)));
    while (this.scale < longest) this.scale *= STEP;
    while (this.scale > 64 && this.scale / STEP > longest * 1.02) this.scale /= STEP;
    this.width = this.rows.values().next().value?.track.clientWidth || 600; // read once, before anything is written
    const forward = moment > this.moment && moment - this.moment < 400;
    const moves = forward ? this.moves(story, moment) : [];
    this.motion.before(this.rows, moves);
    for (const [lane, items] of views) this.row(lane, items, moment);
    this.motion.after(this.rows, forward);
    this.moment = moment;
  }

  /** What moved to another block since the last drawing. */
  moves(story, moment) {
    const found = [];
    for (const block of story.blocks.values()) {
      for (const part of block.parts) if (part.moment > this.moment && part.moment <= moment) found.push({ block, ...part });
    }
    return found;
  }

  row(lane, items, moment) {
    let row = this.rows.get(lane);
    if (!row) {
      const track = make("div", { class: "track", role: "img" });
      const total = make("span", "total");
      row = { track, total, segments: new Map(), lane };
      this.rows.set(lane, row);
      const label = make("span", "who", lane.name);
      this.root.append(make("div", { class: `row ${hue(lane)}`, role: "listitem", data: { worker: lane.name } }, label, track, total));
    }
    const seen = new Set(items.map((item) => item.key));
    for (const item of items) this.segment(row, item, moment);
    for (const [key, segment] of row.segments) {
      if (seen.has(key)) continue;
      row.segments.delete(key);
      this.motion.gone(segment);
    }
    say(row.total, String(end(items)));
    const told = items.map((item) => `${item.level ? "beside it " : ""}${named(item)} ${item.length}`).join(", ");
    row.track.ariaLabel = `${lane.name} sees, in order: ${told || "nothing yet"}`;
    row.track.style.height = `${LEVEL * Math.max(0, ...items.map((item) => item.beside.length))}px`;
  }

  segment(row, item, moment) {
    const segment = held(row.segments, item.key, () => ({ element: make("div", "segment", make("span")), fresh: true }));
    segment.item = item;
    const { element } = segment;
    if (segment.fresh) row.track.append(element);
    const share = (tokens) => `${(100 * tokens) / this.scale}%`;
    const own = item.open && item.block?.owner === row.lane;
    const kind = item.gap ? "gap" : own ? "own" : item.block.owner ? "other" : "common";
    element.className = `segment ${kind} ${item.beside.length > 1 ? "beside " : ""}${hue(item.block?.owner)}`;
    element.dataset.block = named(item);
    element.dataset.tokens = item.length;
    element.title = item.gap ? `a gap of ${item.length} positions` : `${item.block.name}: ${item.length} tokens`;
    element.style.left = share(item.start);
    element.style.width = share(item.length);
    element.style.top = `${item.level * LEVEL}px`;
    const wide = (item.length / this.scale) * this.width > LABEL;
    say(element.firstChild, wide ? named(item) : "");
    if (!item.gap && item.block.parts.length) stripes(element, item, moment);
  }
}

const end = (items) => items.at(-1)?.reach || 0;
const named = (item) => (item.gap ? "gap" : item.block.name);

/** Items with a key that stays while the view grows; spans of one block are told apart by order. */
function spans(items) {
  const counts = new Map();
  for (const item of items) {
    const name = item.gap ? "gap" : item.block.number;
    const count = counts.get(name) || 0;
    counts.set(name, count + 1);
    item.key = `${name}.${count}`;
  }
  levels(items);
  return items;
}

/** At which level each item is drawn: the first that is free where it stands. `beside`: where each level ends there. */
function levels(items) {
  let ends = [];
  for (const item of [...items].sort((a, b) => a.start - b.start)) {
    if (ends.every((end) => end <= item.start)) ends = [];
    const free = ends.findIndex((end) => end <= item.start);
    item.level = free < 0 ? ends.length : free;
    ends[item.level] = item.start + item.length;
    item.beside = ends;
  }
}

/** Paint a shared block in the colours of those who wrote its parts. */
function stripes(element, item, moment) {
  const parts = item.block.parts.filter((part) => part.moment <= moment && part.to > item.lo && part.from < item.end);
  const share = (at) => `${((100 * (Math.min(item.end, Math.max(item.lo, at)) - item.lo)) / Math.max(1, item.length)).toFixed(2)}%`;
  const stops = [];
  let last = item.lo;
  for (const part of parts) {
    if (part.from > last) stops.push(`var(--common) ${share(last)} ${share(part.from)}`);
    stops.push(`color-mix(in srgb, var(--w${part.lane.index % 8}) 40%, var(--paper)) ${share(part.from)} calc(${share(part.to)} - 1px)`, `var(--paper) 0 ${share(part.to)}`);
    last = part.to;
  }
  if (last < item.end) stops.push(`var(--common) ${share(last)} 100%`);
  element.style.backgroundImage = parts.length ? `linear-gradient(90deg, ${stops.join(", ")})` : "";
}
