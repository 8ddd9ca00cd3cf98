// A run as its events tell it. Everything is kept with its moment, so that any can be shown again.
// A moment is a number of events: 0 is before the first, `story.now` after the last.

import { act, line, parsed } from "./acts.js";
import { held, several } from "./dom.js";
import { Echoes } from "./echoes.js";
import { Lane, harmless } from "./lane.js";
import { trait } from "./programs.js";
import { Series } from "./series.js";

const RATE_SECONDS = 5;

/** A run of tokens in the cache: its length over time, and who wrote which part of it. */
class Block {
  constructor(number, name) {
    this.number = number;
    this.name = name;
    this.owner = null; // the lane that writes here
    this.lengths = new Series();
    this.parts = []; // {moment, from, to, lane}: what was moved here
  }

  /** Grow by `tokens` at `moment`, or to `size`, where that is known. */
  grow(moment, tokens, size = null) {
    const before = this.lengths.last || 0;
    const after = size === null ? before + tokens : Math.max(before, size);
    if (after !== before || !this.lengths.values.length) this.lengths.push(moment, after);
  }

  length(moment) {
    return this.lengths.at(moment, 0);
  }
}

export class Story {
  constructor() {
    this.now = 0;
    this.start = null;
    this.ends = new Set(); // tokens that end a text
    this.votes = null; // {worker: answer}, of a vote
    this.waiting = []; // {n, tool, args, lane}: calls that wait for a person's word
    this.end = null;
    this.ended = null; // the moment of the end
    this.lanes = new Map();
    this.blocks = new Map();
    this.views = new Map(); // worker -> Series of items {block, lo, hi, gap}
    this.stops = [0]; // the moments that the slider stops at: each tick, each forward, the end
    this.clock = new Series(); // seconds in forward passes
    this.ledger = new Series();
    this.ticks = new Series();
    this.decoded = new Series();
    this.attention = new Series(); // {n, owners, rows: [{worker, shares: by owner}]}; owners only grow
    this.acts = []; // {moment, tick, lane, text, body}: what happened beside the writing (acts.js)
    this.moments = []; // {moment, stop, kind, lane, text}: what is worth a mark on the timeline
    this.echoes = new Echoes(this);
  }

  /** Take up one event of the trace. Unknown kinds change nothing. */
  feed(event) {
    this.now += 1;
    const take = this[`on_${event.event}`];
    if (typeof take === "function") take.call(this, event);
  }

  lane(name) {
    return held(this.lanes, name, () => new Lane(harmless(name), this.lanes.size));
  }

  block(number, name = "") {
    const block = held(this.blocks, number, () => new Block(number, harmless(name)));
    if (!block.name && name) block.name = harmless(name);
    return block;
  }

  remark(kind, text, lane = null) {
    const last = this.stops.length - 1;
    const stop = this.stops[last] === this.now ? last : last + 1; // the first one that shows it
    this.moments.push({ moment: this.now, stop, kind, lane, text: harmless(text) });
  }

  /** Something that stands above the columns from now on. */
  act(lane, [text, body]) {
    this.acts.push({ moment: this.now, tick: this.ticks.last || 0, lane, text: harmless(text), body });
  }

  // -- the events

  on_start(event) {
    this.start = event;
    this.ends = new Set(event.ends || []);
    for (const name of event.workers) this.lane(name);
    this.clock.push(this.now, 0);
    this.echoes.begin(event.task.prompt);
  }

  on_view(event) {
    const lane = this.lane(event.worker);
    const items = event.items.map(([name, lo, hi, number, length, placed], at) => {
      if (number === null) return { lo: 0, hi: length, gap: true };
      const block = this.block(number, name);
      block.grow(this.now, 0, length);
      if (at === event.items.length - 1 && hi === null) block.owner = lane;
      return { block, lo, hi, at: placed };
    });
    const series = held(this.views, event.worker, () => new Series());
    const change = changed(series.last, items, lane);
    series.push(this.now, items);
    if (change) this.remark(change.kind, `${lane.name}: ${change.text}`, lane);
  }

  on_forward(event) {
    for (const [number, tokens] of event.rows || []) this.block(number).grow(this.now, tokens);
    this.clock.push(this.now, event.seconds);
    this.stops.push(this.now);
  }

  on_tick(event) {
    for (const row of event.rows) {
      const lane = this.lane(row.worker);
      const items = this.views.get(row.worker)?.last;
      if (items?.length) items.at(-1).block?.grow(this.now, row.fed);
      if (row.given) this.given(lane, row.given);
      lane.write(row.text, true, this.now);
      lane.tokens.push(this.now, (lane.tokens.last || 0) + 1);
      lane.closed.push(this.now, this.ends.has(row.token));
      this.echoes.look(lane);
    }
    const seconds = event.ledger?.seconds ?? event.seconds ?? event.n * 0.1;
    this.clock.push(this.now, seconds);
    this.ticks.push(this.now, event.n + 1);
    this.decoded.push(this.now, (this.decoded.last || 0) + event.rows.length);
    if (event.ledger) this.ledger.push(this.now, event.ledger);
    this.stops.push(this.now);
  }

  /** Words that a worker was fed. The problem is left out, a step's label becomes its number. */
  given(lane, text) {
    const prompt = this.start?.task.prompt.trim();
    if (prompt && text.includes(prompt)) return;
    const label = text.match(/^\s*\*\*(.+?) \[(\d+)\]:\*\* ?/);
    if (label && label[1] === lane.name) {
      lane.step().number = Number(label[2]);
      text = text.slice(label[0].length);
    }
    if (text.trim()) lane.write(text, false, this.now);
  }

  /** What a tap saw of the tick just done: shares by layer, of which the mean is shown. */
  on_attention({ n, owners, rows }) {
    const mean = (layers, at) => layers.reduce((sum, layer) => sum + (layer[at] || 0), 0) / layers.length;
    const seen = rows.map(({ worker, shares }) => ({ worker: harmless(worker), shares: owners.map((_, at) => mean(shares, at)) }));
    this.attention.push(this.stops.at(-1), { n, owners: owners.map(harmless), rows: seen });
  }

  on_move(event) {
    const lane = this.lane(event.worker);
    const block = this.block(event.block, event.into);
    const from = block.lengths.last || 0;
    block.grow(this.now, event.tokens);
    const sources = (event.from || []).map(([number]) => this.block(number));
    block.parts.push({ moment: this.now, from, to: from + event.tokens, lane, sources });
    lane.finish(this.now);
    this.remark("move", `${lane.name}: a step of ${event.tokens} tokens moved to the ${block.name}`, lane);
  }

  on_note(event) {
    const { event: _, kind, ...rest } = event;
    const lane = event.worker && this.lanes.get(event.worker);
    if (kind === "told" && lane) lane.tell(event.text, this.now);
    else if (kind === "closed" && lane) lane.write(event.text, true, this.now);
    else if (kind === "found") this.remark("answer", `${event.worker} has found an answer`, lane);
    else if (kind === "votes") this.votes = event.answers;
    else if (kind === "roles") for (const [name, role] of Object.entries(rest)) this.lanes.get(name)?.tell(`Role: ${role}`, this.now);
    else if (kind === "latent") for (const name of event.workers) this.lanes.get(name)?.tell(`${event.steps} latent steps: thoughts that are no words. Who sees this block reads them.`, this.now);
    else if (kind === "approval") {
      this.waiting.push({ n: event.n, tool: event.tool, args: event.arguments, lane });
      this.remark("note", `${event.tool} waits for a person's word`, lane || null);
    } else if (kind === "check") this.remark("note", `${event.worker} is asked whether its work is redundant`, lane);
    else if (kind === "loop" && lane) {
      const said = Number.isFinite(rest.since) ? `looping since tick ${rest.since}` : "";
      lane.loops.push(this.now, said);
      this.remark("note", `${lane.name}: ${said || "loops no more"}`, lane);
    } else if (kind === "refused") this.remark("command", `${event.command} was refused: ${event.why}`);
    else {
      if (kind === "post" && lane && rest.fields) lane.post(rest.fields, this.now);
      const done = act(kind, rest);
      if (kind === "tool" && this.returned === rest.tool) this.acts.pop(); // the same, of which less was known
      this.returned = null;
      if (kind === "tool" && lane) lane.turned = true;
      if (done) this.act(lane, done);
      if (!kind.startsWith("ask")) this.remark("note", kind === "tool" ? done[0] : line(kind, rest), lane || null);
    }
  }

  on_command(event) {
    const lane = this.lanes.get(event.worker);
    const who = event.worker || "everybody";
    if (event.kind === "leave" && lane) lane.left = this.now;
    const said = { say: `said to ${who}`, share: "said to all", leave: `${who} was asked to leave`,
      join: `${who} was asked to join`, answer: "the answer was asked for" }[event.kind] || event.kind;
    if (["say", "share"].includes(event.kind)) this.act(lane, [`${said}: ${event.text.trim()}`]);
    this.remark("command", event.text ? `${said}: ${event.text}` : said, lane || null);
  }

  on_outside(event) {
    const [first, tool] = event.name.split(/ (.*)/s);
    const at = first === "approve" ? this.waiting.findIndex((call) => call.tool === tool) : -1;
    if (at >= 0) this.waiting.splice(at, 1);
    const { name, value } = event;
    const done = at >= 0 ? [`${tool} was ${value ? "approved" : "refused"}`] : act(["recall", "skills", "mcp tools"].includes(name) ? name : `${name} returned`, value);
    this.returned = value?.status ? name : null;
    this.act(null, done);
    if (!this.returned) this.remark(at >= 0 ? "command" : "note", done[0]);
  }

  on_end(event) {
    this.end = event;
    this.ended = this.now;
    this.ledger.push(this.now, event.ledger);
    if (this.stops.at(-1) !== this.now) this.stops.push(this.now);
    this.remark("answer", event.answer === null ? "the run ended without an answer" : line("the answer", parsed(event.answer)));
  }

  // -- what it amounts to

  /** What the run is, in a line; `run`: what the server says of it until it has begun. */
  facts(run) {
    const { start } = this;
    const told = start || run;
    return told ? [told.program, several(told.workers.length, "worker"), start ? start.model?.name : run.model, start && `seed ${start.seed}`].filter(Boolean).join(" · ") : "";
  }

  /** What `worker` sees at `moment`: items with their first and last token, in order. */
  view(worker, moment) {
    let reach = 0;
    return (this.views.get(worker)?.at(moment) || []).map((item) => {
      const end = item.hi ?? item.block.length(moment);
      const [start, length] = [item.at ?? reach, Math.max(0, end - item.lo)];
      reach = Math.max(reach, start + length);
      return { ...item, end, length, start, reach, open: item.hi === null };
    });
  }

  /** Tokens per second over the seconds before `moment`. */
  rate(moment) {
    const last = this.clock.count(moment) - 1;
    if (last < 1) return 0;
    let first = last;
    while (first > 0 && this.clock.values[last] - this.clock.values[first] < RATE_SECONDS) first -= 1;
    const seconds = this.clock.values[last] - this.clock.values[first];
    const tokens = this.decoded.at(moment, 0) - this.decoded.at(this.clock.moments[first], 0);
    return seconds > 0 ? tokens / seconds : 0;
  }

  /** What was spent by `moment`, as far as the trace tells. */
  spent(moment) {
    const counted = { ticks: this.ticks.at(moment, 0), decoded: this.decoded.at(moment, 0), seconds: this.clock.at(moment, 0) };
    const ledger = { ...counted, ...this.ledger.at(moment, {}) };
    ledger.tokens = (ledger.prefill || 0) + ledger.decoded + (ledger.latent || 0);
    return ledger;
  }

  /** Whether the worker has written nothing for some ticks before `moment` while others have. */
  quiet(lane, moment) {
    const count = lane.tokens.count(moment);
    const seen = count ? lane.tokens.moments[count - 1] : 0;
    return this.ticks.count(moment) - this.ticks.count(seen) >= 4;
  }

  /** Whether the worker writes no more. Where workers take turns, an end is that of a turn. */
  finished(lane, moment) {
    return !trait(this.start?.program, "turns") && lane.closed.at(moment, false) && this.quiet(lane, moment);
  }
}

/** How a view differs from the one before, in words; null where it only follows a step. */
function changed(before, after, lane) {
  const name = (item) => item.block.name;
  const strangers = (items) => items.filter((item) => !item.gap && item.block.owner && item.block.owner !== lane);
  if (!before) {
    const from = strangers(after.slice(0, -1)).find((item) => item.hi !== null);
    return from ? { kind: "fork", text: `forks from ${name(from)} at token ${from.hi}` } : null;
  }
  const gaps = (items) => items.reduce((sum, item) => sum + (item.gap ? item.hi : 0), 0);
  const gap = gaps(after) - gaps(before);
  if (gap > 0) return { kind: "gap", text: `${gap} positions are a gap now` };
  const blocks = (items) => new Set(items.map((item) => item.block));
  const known = blocks(before);
  const closed = strangers(after).filter((item) => item.hi !== null && !known.has(item.block));
  if (closed.length) return { kind: "handover", text: `sees ${closed.map(name).join(", ")} from now on` };
  const kept = blocks(after);
  const gone = before.filter((item) => !item.gap && item.hi !== null && !kept.has(item.block));
  if (gone.length) return { kind: "prune", text: `${gone.map(name).join(", ")} left the view` };
  return null;
}
