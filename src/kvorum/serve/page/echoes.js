// Who uses whose words. Three signs are looked for in what a worker picked itself, never in what it was given:
// a run of WORDS words that another worker wrote before ("echo" where the worker saw it, "twin" where it did not),
// a number that another wrote or was told, in view ("value"), and another worker's name ("name"). What the problem
// has is nobody's, and who repeats itself takes nothing up.

import { held } from "./dom.js";
import { Series } from "./series.js";

export const WORDS = 5;
const NUMBER = /\d\d/;
const WORD = /[\p{L}\p{N}]+(?:[.,'’][\p{L}\p{N}]+)*/gu;

export class Echoes {
  constructor(story) {
    this.story = story;
    this.first = new Map(); // words -> {lane, moment, paragraph, from, to, said}; null: the problem's own
    this.state = new Map(); // lane -> where looking goes on
    this.pairs = new Map(); // "reader\nsource" -> {reader, source, echo, twin, name: Series of counts}
  }

  begin(prompt) {
    const words = [...prompt.toLowerCase().matchAll(WORD)].map((match) => match[0]);
    for (const word of words) if (NUMBER.test(word)) this.first.set(word, null);
    for (let at = WORDS; at <= words.length; at += 1) this.first.set(words.slice(at - WORDS, at).join(" "), null);
  }

  /** Look at what `lane` has written since. A word counts once something follows it. */
  look(lane) {
    const state = held(this.state, lane, () => ({ at: 0, length: 0, words: [], open: null }));
    const { paragraphs } = lane;
    for (; state.at < paragraphs.length; state.at += 1) {
      const paragraph = paragraphs[state.at];
      const closed = state.at < paragraphs.length - 1;
      if (paragraph.kind === "words") this.read(lane, paragraph, state, closed);
      if (!closed) break;
      Object.assign(state, { length: 0, words: [], open: null });
    }
  }

  read(lane, paragraph, state, closed) {
    const text = paragraph.text;
    const begun = state.length;
    state.length = text.length;
    for (const match of text.slice(begun).matchAll(WORD)) {
      const from = begun + match.index;
      const to = from + match[0].length;
      if (to === text.length && !closed) state.length = from;
      else this.word(lane, paragraph, state, { text: match[0], from, to });
    }
  }

  word(lane, paragraph, state, word) {
    const picked = own(paragraph, word.from);
    if (NUMBER.test(word.text)) this.value(lane, paragraph, word, picked);
    if (!picked) {
      Object.assign(state, { words: [], open: null });
      return;
    }
    this.name(lane, paragraph, word);
    state.words.push(word);
    if (state.words.length > WORDS) state.words.shift();
    if (state.words.length < WORDS) return;
    const key = state.words.map((each) => each.text.toLowerCase()).join(" ");
    const { from } = state.words[0];
    const known = this.first.get(key);
    if (known === undefined) {
      this.first.set(key, { lane, moment: this.story.now, paragraph, from, to: word.to, said: new Set([lane]) });
    } else if (known && !known.said.has(lane)) { // who says it again repeats itself
      known.said.add(lane);
      if (known.moment < this.story.now) {
        this.echo(lane, paragraph, state, known, from, word);
        return;
      }
    }
    state.open = null;
  }

  echo(lane, paragraph, state, known, from, word) {
    const kind = this.saw(lane, known.lane) ? "echo" : "twin";
    const { open } = state;
    if (open && open.source === known.lane && open.kind === kind) {
      open.to = word.to;
      open.origin.to = known.paragraph === open.origin.paragraph ? known.to : open.origin.to;
      paragraph.version += 1;
      this.count(lane, known.lane, kind, 1);
      return;
    }
    const origin = { paragraph: known.paragraph, from: known.from, to: known.to };
    state.open = { from, to: word.to, moment: this.story.now, kind, source: known.lane, origin };
    paragraph.mark(state.open);
    this.count(lane, known.lane, kind, WORDS);
  }

  /** A number, from a worker's first use of it on. */
  value(lane, paragraph, { text, from, to }, picked) {
    const known = this.first.get(text);
    const { now } = this.story;
    if (known === undefined) this.first.set(text, { lane, moment: now, paragraph, said: new Set([lane]) });
    else if (known && !known.said.has(lane)) {
      known.said.add(lane);
      if (!picked || known.moment === now || !this.saw(lane, known.lane)) return;
      paragraph.mark({ from, to, moment: now, kind: "value", source: known.lane, origin: known });
      this.count(lane, known.lane, "value", 1);
    }
  }

  name(lane, paragraph, word) {
    const found = this.story.lanes.get(word.text);
    if (!found || found === lane) return;
    paragraph.mark({ from: word.from, to: word.to, moment: this.story.now, kind: "name", source: found, origin: null });
    this.count(lane, found, "name", 1);
  }

  /** Whether what `lane` sees now holds anything that `source` wrote. */
  saw(lane, source) {
    const items = this.story.views.get(lane.name)?.last || [];
    return items.some(({ block }) => block && (block.owner === source || block.parts.some((part) => part.lane === source)));
  }

  count(reader, source, kind, more) {
    const key = `${reader.index}\n${source.index}`;
    const made = () => ({ reader, source, echo: new Series(), twin: new Series(), value: new Series(), name: new Series() });
    const series = held(this.pairs, key, made)[kind];
    series.push(this.story.now, (series.last || 0) + more);
  }

  /** All pairs by `moment`: {reader, source, echo, twin, value, name}, in words, numbers and mentions. */
  at(moment) {
    return [...this.pairs.values()].map(({ reader, source, ...kinds }) => {
      const counts = Object.entries(kinds).map(([kind, series]) => [kind, series.at(moment, 0)]);
      return { reader, source, ...Object.fromEntries(counts) };
    }).filter((pair) => pair.echo + pair.twin + pair.value + pair.name > 0);
  }
}

/** Whether the character at `at` was picked by the worker itself. */
function own(paragraph, at) {
  let length = 0;
  for (const piece of paragraph.pieces) {
    length += piece.text.length;
    if (at < length) return piece.own;
  }
  return true;
}
