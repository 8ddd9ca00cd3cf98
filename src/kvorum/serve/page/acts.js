// What happens beside the writing: words said to workers, calls of tools, what was recalled, decisions with their
// probabilities; of anything else its names and values.

import { hue, make, several } from "./dom.js";
import { harmless } from "./lane.js";

const [MOST, DEEP, LONG, SHORT] = [50, 6, 2000, 90]; // entries; levels; characters of a text, and of what fits a line
const QUIET = new Set(["asking", "asked", "question", "answer", "quote", "field", "post", "step", "settled", "prune", "mode"]); // told elsewhere

const cut = (text, most) => (text.length > most ? `${text.slice(0, most)}…` : text);

/** A value of JSON as elements: names with values, lists, text. */
export function values(value, depth = 0) {
  if (value === null || typeof value !== "object" || depth > DEEP) {
    return cut(harmless(value === null ? "none" : typeof value === "string" ? value : JSON.stringify(value)), LONG);
  }
  const all = Object.entries(value);
  if (!all.length) return "none";
  const list = Array.isArray(value);
  const brief = all.map(([name, one]) => (list ? one : `${name} ${one}`)).join(", ");
  if (depth && brief.length < SHORT && all.every(([, one]) => typeof one !== "object")) return harmless(brief);
  const rows = all.slice(0, MOST).map(([name, one]) => [list ? `${Number(name) + 1}.` : harmless(name), values(one, depth + 1)]);
  if (all.length > MOST) rows.push(["…", `${all.length - MOST} more`]);
  return make("dl", "values", ...rows.flatMap(([name, one]) => [make("dt", "", name), make("dd", "", one)]));
}

/** The value that `text` is as JSON, where it holds names or a list; else the text. */
export function parsed(text) {
  try {
    const value = JSON.parse(text);
    return value && typeof value === "object" ? value : text;
  } catch {
    return text;
  }
}

/** Bars for [label, share from 0 to 1, what is written behind it], the largest first. */
export function bars(rows) {
  return make("ul", "bars", ...[...rows].sort((a, b) => b[1] - a[1]).map(([label, share, words]) => make(
    "li", {}, make("span", "", harmless(label).slice(0, 200)), make("meter", { value: share, aria: { hidden: true } }), make("strong", "", words),
  )));
}

/** Of a note or of what came from outside: [text, what is shown under it]; null: it is no act. */
export function act(kind, data) {
  if (QUIET.has(kind)) return null;
  if (kind === "tool") {
    const { worker, tool, status, arguments: given, result } = data;
    return [`${worker} called ${tool}${status === "ok" ? "" : ` (${status})`}`, given && { with: parsed(given), result: parsed(result) }];
  }
  if (kind === "decided") {
    const shares = Object.entries(data.probabilities).map(([label, share]) => [label, share, `${(100 * share).toFixed(1)} %`]);
    return [`${data.name}: ${data.answer}`, () => bars(shares)];
  }
  if (kind === "recall") return [`${several(data.entries.length, "text")} recalled`, data.entries.map((one) => one.text)];
  if (kind === "skills" || kind === "mcp tools") {
    return [kind === "skills" ? several(data.length, "skill") : `${several(data.length, "tool")} of MCP servers`, Object.fromEntries(data.map((one) => [one.name, one.description]))];
  }
  return [kind.replaceAll("_", " "), data];
}

/** One line for a note: its kind, and the values that are plain. */
export function line(kind, data) {
  const plain = Object.entries(data).filter(([, value]) => typeof value !== "object").map(([name, value]) => `${name} ${value}`);
  return cut(typeof data === "string" ? `${kind}: ${data}` : [kind, ...plain].join(", "), 160);
}

export class Acts {
  constructor(root) {
    this.root = root;
  }

  render(story, moment) {
    const acts = story.acts.filter((one) => one.moment <= moment);
    if (this.shown === acts.length && this.story === story) return;
    Object.assign(this, { story, shown: acts.length });
    this.root.hidden = !acts.length;
    this.root.replaceChildren(...acts.map(({ tick, lane, text, body }) => make(
      "li", hue(lane), make("p", "", `Tick ${tick}, ${text}`), body ? (typeof body === "function" ? body() : values(body)) : null,
    )));
    this.root.scrollTop = this.root.scrollHeight;
  }
}
