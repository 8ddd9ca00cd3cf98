// A column per worker: its text as it stood at a moment, with marks where it uses another worker's words.

import { find, held, hue, make, say, several } from "./dom.js";
import { formula } from "./formulas.js";
import { inline } from "./markdown.js";
import { trait } from "./programs.js";

const NEAR = 48; // pixels from the end within which a column follows its text

export class Columns {
  constructor(root, actions, prefix = "worker") {
    this.root = root;
    this.actions = actions; // {say(lane), leave(lane)}
    this.prefix = prefix; // of the columns' ids
    this.clear();
  }

  clear() {
    this.columns = new Map();
    this.room = "";
    this.root.replaceChildren();
  }

  render(story, moment, { live }) {
    for (const lane of story.lanes.values()) {
      held(this.columns, lane, () => new Column(this.root, lane, this.actions, this.prefix)).render(story, moment, live);
    }
    const follow = [...this.columns.values()].filter((column) => column.follows && column.dirty);
    const ends = follow.map((column) => column.body.scrollHeight); // all are read before any is moved: one layout
    follow.forEach((column, at) => { column.body.scrollTop = ends[at]; });
    const room = [story.lanes.size, this.root.clientWidth, innerHeight, live, story.end !== null && story.ended <= moment].join();
    if (room !== this.room) this.arrange(story.lanes.size);
    this.room = room;
  }

  /** Rows of equal length, and as high as the window has room for. */
  arrange(workers) {
    const most = Math.max(1, Math.min(workers, Math.floor((this.root.clientWidth + 28) / 283)));
    const rows = Math.ceil(workers / most);
    this.root.style.setProperty("--columns", Math.ceil(workers / rows));
    const above = this.root.getBoundingClientRect().top + scrollY;
    const room = innerHeight - above - find("transport").offsetHeight - 22;
    this.root.style.setProperty("--room", `${Math.max(rows > 1 ? 260 : 300, rows > 1 ? room / 2 : room)}px`);
    this.root.dataset.workers = workers;
  }

  /** Put the keyboard's focus on a column. */
  focus(index) {
    [...this.columns.values()][index]?.body.focus();
  }

  /** Show where a mark's words come from. */
  reveal(mark) {
    this.bring(mark.source, mark.origin?.paragraph ?? null);
  }

  /** Bring a paragraph of a worker into sight, or its head where it is null. */
  bring(lane, paragraph) {
    for (const element of this.root.querySelectorAll(".origin")) element.classList.remove("origin");
    const column = this.columns.get(lane);
    const shown = paragraph ? column?.shown.get(paragraph)?.element : column?.head;
    if (!shown) return;
    shown.classList.add("origin");
    column.follows = false;
    shown.scrollIntoView({ block: "nearest", inline: "nearest" });
    if (paragraph) column.body.scrollTo({ top: shown.offsetTop - column.body.offsetTop - 40 });
  }
}

class Column {
  constructor(root, lane, actions, prefix) {
    this.lane = lane;
    this.shown = new Map(); // paragraph -> {element, key}
    this.actions = actions;
    const id = `${prefix}-${lane.index}`;
    this.state = make("span", "state");
    const tool = (word, act, title, ariaLabel) => make("button", { class: "quiet", on: { click: () => act(lane) }, title, ariaLabel }, word);
    this.tools = make(
      "span",
      "tools",
      tool("say", actions.say, `Say something into ${lane.name}'s block`, `Say to ${lane.name}`),
      tool("stop", actions.leave, `Ask ${lane.name} to stop`, `Stop ${lane.name}`),
    );
    this.loop = make("p", { class: "loop", hidden: true }, make("span"), make("button", { on: { click: () => actions.leave(lane) }, ariaLabel: `Stop ${lane.name}, which repeats itself` }, "Stop it"));
    this.head = make("header", "", make("h3", { id }, lane.name), this.state, this.tools);
    this.body = make("div", { class: "text", tabIndex: 0, role: "group", aria: { labelledby: id } });
    this.follows = true;
    this.body.addEventListener("scroll", () => {
      this.follows = this.body.scrollHeight - this.body.scrollTop - this.body.clientHeight < NEAR;
    }, { passive: true });
    this.element = make("div", `column ${hue(lane)}`, this.head, this.loop, this.body);
    root.append(this.element);
  }

  render(story, moment, live) {
    const { lane } = this;
    const left = lane.left !== null && lane.left <= moment;
    const quiet = story.quiet(lane, moment);
    const over = story.ended !== null && story.ended <= moment;
    const shared = lane.shared.at(moment, 0);
    const written = lane.tokens.at(moment, 0);
    const ended = !left && story.finished(lane, moment);
    const deaf = trait(story.start?.program, "listens") === false;
    say(this.state, [several(written, "token"), shared ? `${shared} shared` : "", left ? "has left" : ended ? "has ended" : ""].filter(Boolean).join(" · "));
    this.element.classList.toggle("silent", left || quiet);
    this.element.classList.toggle("writing", live && !left && !quiet && !over);
    this.tools.hidden = !live || over;
    for (const button of this.tools.children) button.disabled = left || ended || deaf;
    const loops = lane.loops.at(moment);
    this.loop.hidden = !loops;
    say(this.loop.firstChild, loops ? `says the same again and again: ${loops}` : "");
    this.loop.lastChild.hidden = this.tools.hidden || left || ended || deaf;
    this.dirty = false;
    let wanted = 0;
    let open = ""; // what the fence before this paragraph began
    const seen = lane.paragraphs.filter((each) => each.born <= moment && each.gone > moment && !each.blank);
    for (const paragraph of seen) {
      const fence = paragraph.fence?.[1] ? "code" : paragraph.fence ? "math" : "";
      const last = paragraph === seen.at(-1); // a formula is drawn once its line is whole
      this.place(paragraph, moment, wanted, fence || (last && open === "math" ? "" : open), fence);
      if (fence && (!open || open === fence)) open = open ? "" : fence;
      wanted += 1;
    }
    for (; this.body.childElementCount > wanted; this.dirty = true) this.body.lastElementChild.remove();
    if (this.shown.size > wanted) {
      for (const [paragraph, { element }] of this.shown) if (!element.isConnected) this.shown.delete(paragraph);
    }
  }

  /** Make sure that the paragraph stands at `at` as it was at `moment`. */
  place(paragraph, moment, at, within, fence) {
    const done = paragraph.step.done !== null && paragraph.step.done <= moment;
    const length = paragraph.lengthAt(moment);
    const marks = paragraph.marks.filter((mark) => mark.kind !== "twin" && mark.moment <= moment && mark.from < length);
    const key = `${paragraph.version}:${length}:${marks.length}:${done}:${within}`;
    const shown = held(this.shown, paragraph, () => ({ element: make("p"), key: "" }));
    if (this.body.children[at] !== shown.element) this.body.insertBefore(shown.element, this.body.children[at] || null);
    if (shown.key === key) return;
    shown.key = key;
    this.dirty = true;
    const first = this.first(paragraph, moment);
    shown.element.className = [paragraph.kind, done ? "done" : "", within === "code" || /^#{1,6} /.test(paragraph.text) ? within || "head" : "", within === "math" && fence ? "sr" : "", first ? "first" : paragraph.spaced ? "spaced" : ""].join(" ").trim();
    if (first && paragraph.kind === "words") shown.element.dataset.step = paragraph.step.number;
    else delete shown.element.dataset.step;
    shown.element.replaceChildren(...(within === "math" && !fence ? [formula(paragraph.text, true)] : this.runs(paragraph, length, marks, within === "code")));
  }

  first(paragraph, moment) {
    return this.lane.paragraphs.find((each) => each.step === paragraph.step && each.kind === "words" && !each.blank && each.gone > moment) === paragraph;
  }

  /** The first `length` characters: marks, and between them text as Markdown. */
  runs(paragraph, length, marks, code) {
    const text = paragraph.text.slice(0, length);
    const cuts = new Set([0, length]);
    const given = [];
    let at = 0;
    for (const piece of paragraph.pieces) {
      if (!piece.own) {
        given.push([at, at + piece.text.length]);
        cuts.add(Math.min(at, length)).add(Math.min(at + piece.text.length, length));
      }
      at += piece.text.length;
    }
    for (const mark of marks) cuts.add(mark.from).add(Math.min(mark.to, length));
    const edges = [...cuts].sort((a, b) => a - b);
    const runs = [];
    edges.slice(1).forEach((to, index) => {
      const from = edges[index];
      const covering = marks.filter((mark) => mark.from <= from && to <= Math.min(mark.to, length));
      const mark = covering.find((each) => each.kind === "name") || covering[0];
      const fed = paragraph.kind !== "told" && given.some(([a, b]) => a <= from && to <= b);
      const last = runs.at(-1);
      if (last && last.fed === fed && last.mark?.kind === mark?.kind && last.mark?.source === mark?.source) last.to = to;
      else runs.push({ from, to, mark, fed });
    });
    return runs.flatMap(({ from, to, mark, fed }) => {
      const words = text.slice(from, to);
      if (mark) return this.mark(words, mark);
      if (fed) return make("span", "given", words);
      return code ? words : inline(from ? words : words.replace(/^#{1,6} +/, ""));
    });
  }

  mark(words, mark) {
    const source = mark.source.name;
    const title = {
      echo: `The same words as ${source}, whose text was in view`,
      value: `A number that ${source} wrote or was told before, in view`,
      name: `${this.lane.name} names ${source}`,
    }[mark.kind];
    return make("mark", { class: `${mark.kind} ${hue(mark.source)}`, title, data: { source }, on: { click: () => this.actions.reveal(mark) } }, words);
  }
}
