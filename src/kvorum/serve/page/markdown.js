// A model's Markdown as elements. What is written becomes text nodes in elements of our own choice, never markup: no
// link leads anywhere, no picture is fetched, no HTML is read.

import { make } from "./dom.js";
import { formula } from "./formulas.js";

const FENCE = /^\s{0,3}(```+|~~~+)\s*([\w+#.-]*)/;
const HEAD = /^\s{0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^\s{0,3}>\s?(.*)$/;
const RULE = /^\s{0,3}([-*_])(\s*\1){2,}\s*$/;
const FORMULA = /^\s*(\\\[|\$\$)\s*$/;
const ROW = /^\s*\|(.+)\|\s*$/;
const INLINE = /(`+)(.+?)\1(?!`)|\\\[(.+?)\\\]|\$\$(.+?)\$\$|\\\((.+?)\\\)|\$([^\s$](?:[^$]*?[^\s$])?)\$(?!\d)|\*\*(\S(?:.*?\S)?)\*\*|__(\S(?:.*?\S)?)__|\*(\S(?:[^*]*?\S)?)\*|!?\[([^\]]*)\]\(([^)\s]*)[^)]*\)/s;

/** Elements for `text`. */
export function markdown(text) {
  const lines = text.split("\n");
  const made = [];
  let at = 0;
  const take = (pattern) => {
    const rows = [];
    for (; at < lines.length && pattern.test(lines[at]); at += 1) rows.push(lines[at].match(pattern));
    return rows;
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = line.match(FENCE);
    const head = line.match(HEAD);
    if (fence) made.push(block(fence[1], fence[2]));
    else if (FORMULA.test(line)) made.push(block(line.trim() === "$$" ? "$$" : "\\]", "formula"));
    else if (head) {
      made.push(make(`h${Math.min(6, head[1].length + 2)}`, {}, ...inline(head[2])));
      at += 1;
    } else if (RULE.test(line)) {
      made.push(make("hr"));
      at += 1;
    } else if (ITEM.test(line)) made.push(list());
    else if (QUOTE.test(line)) made.push(make("blockquote", "", ...markdown(take(QUOTE).map((row) => row[1]).join("\n"))));
    else if (ROW.test(line)) made.push(table(take(ROW).map((row) => row[1])));
    else if (!line.trim()) at += 1;
    else made.push(paragraph());
  }
  return made;

  function block(mark, kind) {
    const held = [];
    for (at += 1; at < lines.length && !lines[at].trim().startsWith(mark); at += 1) held.push(lines[at]);
    at += 1;
    if (kind === "formula") return formula(held.join("\n"), true);
    return make("pre", { tabIndex: 0, data: kind ? { kind } : {} }, make("code", "", held.join("\n")));
  }

  function list() {
    const first = lines[at].match(ITEM);
    const ordered = /\d/.test(first[2]);
    const from = ordered ? parseInt(first[2], 10) : 1;
    const root = make(ordered ? "ol" : "ul", from === 1 ? {} : { start: from });
    while (at < lines.length) {
      const item = lines[at].match(ITEM);
      if (!item || item[1].length < first[1].length) break;
      if (item[1].length > first[1].length + 1 && root.lastElementChild) {
        root.lastElementChild.append(list());
        continue;
      }
      const words = [item[3]];
      for (at += 1; at < lines.length && lines[at].trim() && !begins(lines[at]); at += 1) words.push(lines[at].trim());
      root.append(make("li", "", ...inline(words.join(" "))));
    }
    return root;
  }

  function paragraph() {
    const words = [];
    for (; at < lines.length && lines[at].trim() && !begins(lines[at]); at += 1) words.push(lines[at]);
    return make("p", "", ...inline(words.join("\n")));
  }
}

const begins = (line) => [FENCE, HEAD, ITEM, QUOTE, RULE, FORMULA, ROW].some((pattern) => pattern.test(line));

function table(rows) {
  const cells = rows.map((row) => row.split("|").map((cell) => cell.trim()));
  const ruled = cells.length > 1 && cells[1].every((cell) => /^:?-+:?$/.test(cell));
  const line = (kind) => (row) => make("tr", "", ...row.map((cell) => make(kind, {}, ...inline(cell))));
  const body = make("tbody", "", ...cells.slice(ruled ? 2 : 0).map(line("td")));
  return make("table", "", ruled ? make("thead", "", line("th")(cells[0])) : null, body);
}

/** Text with emphasis, code and formulas; of a link its name and address, as text. */
export function inline(text) {
  const made = [];
  for (let rest = text; rest;) {
    const found = rest.match(INLINE);
    if (!found) {
      made.push(rest);
      break;
    }
    if (found.index) made.push(rest.slice(0, found.index));
    const [whole, , code, shown, shown2, math, dollars, strong, strong2, weak, label, place] = found;
    if (code !== undefined) made.push(make("code", "", code.trim() || code));
    else if (shown !== undefined || shown2 !== undefined) made.push(formula(shown ?? shown2, true));
    else if (math !== undefined || dollars !== undefined) made.push(formula(math ?? dollars));
    else if (strong !== undefined || strong2 !== undefined) made.push(make("strong", "", ...inline(strong ?? strong2)));
    else if (weak !== undefined) made.push(make("em", "", ...inline(weak)));
    else made.push(label === place || !place ? label || place : `${label} (${place})`);
    rest = rest.slice(found.index + whole.length);
  }
  return made;
}
