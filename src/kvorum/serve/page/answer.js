// The answer of a run, on top once it is there: with its Markdown, its votes, and as a file to keep.

import { bars, parsed, values } from "./acts.js";
import { find, make, on, say } from "./dom.js";
import { harmless } from "./lane.js";
import { markdown } from "./markdown.js";

const OUTCOMES = { answered: "found by the workers", forced: "asked for at the end", cut: "cut at the budget", none: "none" };

export class Answer {
  constructor() {
    this.story = null;
    this.drawn = null; // the end that the elements were made of
    on("answer-copy", async () => {
      await navigator.clipboard.writeText(harmless(this.story.end.answer ?? ""));
      say(find("answer-copy"), "copied");
      setTimeout(() => say(find("answer-copy"), "copy"), 2000);
    });
    on("answer-save", () => save("answer.md", "text/markdown", this.page()));
  }

  render(story, moment) {
    this.story = story;
    const { end, ended } = story;
    const shown = end !== null && ended <= moment;
    find("answer").hidden = !shown;
    if (!shown) return;
    if (this.drawn !== end) {
      this.drawn = end;
      find("answer-text").replaceChildren(...written(end.answer));
      find("tally").replaceChildren(tally(story.votes));
    }
    find("answer-copy").hidden = find("answer-save").hidden = end.answer === null;
    say(find("answer-how"), outcome(end));
  }

  /** The problem, what the run was, and the answer, as Markdown. */
  page() {
    const { start, end } = this.story;
    const problem = harmless(start?.task.prompt ?? "").split("\n").map((line) => `> ${line}`).join("\n");
    return `${problem}\n\n${harmless(end.answer ?? "")}\n\n---\n${find("run-facts").textContent} · ${outcome(end)}\n`;
  }
}

export const outcome = (end) => (end.spent === "asked" ? "asked for while the run went on" : OUTCOMES[end.outcome] || end.outcome);

/** Hand `text` to the person as a file. */
export function save(name, type, text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** An answer as elements: JSON as names and values, else its Markdown. */
export function written(answer) {
  const value = parsed(answer);
  return answer === null ? ["none"] : value === answer ? markdown(harmless(answer)) : [values(value)];
}

/** The votes, the answer with the most first. */
function tally(votes) {
  const counts = new Map();
  const all = Object.values(votes || {});
  for (const answer of all) counts.set(answer, (counts.get(answer) || 0) + 1);
  return bars([...counts].map(([answer, count]) => [answer || "no answer", count / all.length, `${count} of ${all.length}`]));
}
