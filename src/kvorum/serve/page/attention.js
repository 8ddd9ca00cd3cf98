// Whose words each worker attended to: a table that is a heat map, at the tick shown or over the run up to it.

import { amount, find, hue, make, say } from "./dom.js";

export class Attention {
  constructor() {
    this.panel = find("attention");
    this.table = find("attention-table");
    this.span = find("attention-span");
  }

  render(story, moment) {
    const seen = story.attention.at(moment);
    const whole = this.span.value === "run";
    const key = seen && `${whole}${seen.n}${story.now === story.ended}`;
    this.panel.hidden = !seen;
    if (!seen || (this.key === key && this.of === story)) return;
    Object.assign(this, { key, of: story });
    const rows = whole ? seen.sums : seen.rows;
    const owners = [...new Set([...rows.values()].flatMap(({ shares }) => [...shares.keys()]))];
    const lane = (name) => hue(story.lanes.get(name));
    const head = owners.map((owner) => make("th", { scope: "col", class: lane(owner) }, owner || "nobody"));
    this.table.replaceChildren(
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "attends to"), ...head)),
      make("tbody", {}, ...[...rows].map(([name, { count, shares }]) => make(
        "tr", {}, make("th", { scope: "row", class: lane(name) }, name), ...owners.map((owner) => cell((shares.get(owner) || 0) / count, lane(owner))),
      ))),
    );
    const times = [...seen.sums.values()].reduce((most, { count }) => Math.max(most, count), 0);
    say(find("attention-note"), `Of the attention of each worker’s newest token, which share fell on whose words: the softmax weights of the forward pass itself, summed over those words, means over heads and layers; ${whole ? `of ${amount(times)} ticks` : `in tick ${amount(seen.n + 1)}`}. Nobody’s are the problem and headings; what a sink takes is left out.`);
  }
}

function cell(share, colour) {
  const made = make("td", { class: colour, data: { share: share.toFixed(5) } }, `${(100 * share).toFixed(1)} %`);
  made.style.setProperty("--heat", `${(45 * Math.sqrt(Math.min(1, share))).toFixed(1)}%`); // that small shares are seen, too
  return made;
}
