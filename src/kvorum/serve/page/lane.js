// What one worker has written: paragraphs of pieces, each with the moment it came. Text is data and stays plain text.

import { Series } from "./series.js";

const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
const LONG = 1200;

/** Text without control characters and without what turns the direction of writing. */
export function harmless(text) {
  return String(text).replace(/\r\n?/g, "\n").replace(CONTROLS, "");
}

/** Pieces of text up to an end of line; `own`: the worker picked it. */
export class Paragraph {
  constructor(step, kind, moment) {
    this.step = step;
    this.kind = kind; // "words", "told", or "message": what was written as words, to be read
    this.born = moment;
    this.pieces = []; // {moment, text, own}
    this.marks = []; // {from, to, moment, kind, source}: characters from..to
    this.gone = Infinity; // the moment from which on something else stands in its place
    this.length = 0;
    this.fence = null; // [1]: it begins or ends code; [2]: a formula of lines
    this.blank = true; // nothing but white space so far
    this.spaced = false; // behind an empty line
    this.version = 0;
  }

  write(text, own, moment) {
    this.pieces.push({ moment, text, own });
    this.length += text.length;
    this.blank &&= !text.trim();
    if (this.length < 40) this.fence = this.text.match(/^\s*(?:(```|~~~)|(\\[[\]]|\$\$)\s*$)/);
    this.version += 1;
  }

  mark(mark) {
    this.marks.push(mark);
    this.version += 1;
  }

  get text() {
    return this.pieces.map((piece) => piece.text).join("");
  }

  /** The moment at which the first `length` characters were there. */
  momentOf(length) {
    let reached = 0;
    for (const piece of this.pieces) {
      reached += piece.text.length;
      if (reached >= length) return piece.moment;
    }
    return this.born;
  }

  /** How many characters were there at `moment`. */
  lengthAt(moment) {
    const last = this.pieces.at(-1);
    if (last && last.moment <= moment) return this.length;
    let length = 0;
    for (const piece of this.pieces) {
      if (piece.moment > moment) break;
      length += piece.text.length;
    }
    return length;
  }
}

/** One worker's column. */
export class Lane {
  constructor(name, index) {
    this.name = name;
    this.index = index;
    this.paragraphs = [];
    this.steps = []; // {number, done: moment or null}
    this.tokens = new Series();
    this.closed = new Series(); // whether its last token ends a text
    this.shared = new Series(); // steps moved to the history
    this.loops = new Series(); // that it loops, in words
    this.left = null; // the moment it was asked to leave
    this.turned = false;
    this.turn = 0; // the paragraph at which it began to answer to what it was told last
  }

  step() {
    const last = this.steps.at(-1);
    if (last && last.done === null) return last;
    const step = { number: this.steps.length + 1, done: null };
    this.steps.push(step);
    this.turned = true;
    return step;
  }

  /** Append text. Empty lines at the beginning of a step are left out; several in a row are one. */
  write(text, own, moment) {
    const step = this.step();
    harmless(text).split("\n").forEach((line, at) => { // a step's first line begins at its left edge
      let paragraph = this.paragraphs.at(-1);
      const fresh = !paragraph || this.turned || paragraph.kind === "told";
      if (fresh || (at && paragraph.length) || (paragraph.length > LONG && /^\s/.test(line))) {
        if (fresh) line = line.trimStart();
        if (fresh && !line) return;
        const spaced = !fresh && paragraph.blank;
        paragraph = new Paragraph(step, "words", moment);
        paragraph.spaced = spaced;
        this.paragraphs.push(paragraph);
        this.turned = false;
      } else if (at) paragraph.spaced = true;
      if (line) paragraph.write(line, own, moment);
    });
  }

  /** A message that the program gave to the worker. */
  tell(text, moment) {
    const paragraph = new Paragraph(this.step(), "told", moment);
    paragraph.write(harmless(text), false, moment);
    this.paragraphs.push(paragraph);
    this.turn = this.paragraphs.length;
  }

  /** What was written in this turn is a message with these fields, and is shown as that from now on. */
  post(fields, moment) {
    for (const paragraph of this.paragraphs.slice(this.turn)) paragraph.gone = moment;
    for (const [name, value] of Object.entries(fields)) {
      const paragraph = new Paragraph(this.step(), "message", moment); // no kind in which words are looked for again
      paragraph.write(harmless(`${name}: `), false, moment);
      paragraph.write(harmless(typeof value === "string" ? value : JSON.stringify(value)), true, moment);
      this.paragraphs.push(paragraph);
    }
    this.turned = true;
    this.turn = this.paragraphs.length;
  }

  /** The step that is being written has moved to the shared history. */
  finish(moment) {
    const last = this.steps.at(-1);
    if (!last || last.done !== null) return;
    last.done = moment;
    this.shared.push(moment, (this.shared.last || 0) + 1);
    for (const paragraph of this.paragraphs) if (paragraph.step === last) paragraph.version += 1;
  }
}
