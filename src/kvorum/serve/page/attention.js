// Whose words each worker attended to, as a heat map.

import { amount, find, held, hue, make, say, several } from "./dom.js";

export class Attention {
  constructor() {
    this.span = find("attention-span");
  }

  render(story, moment) {
    const all = story.attention.values.slice(0, story.attention.count(moment));
    const last = all.at(-1);
    find("attention").hidden = !last;
    const whole = this.span.value === "run";
    if (!last || (this.last === last && this.whole === whole)) return;
    Object.assign(this, { last, whole });
    const sums = new Map();
    for (const { rows } of whole ? all : [last]) {
      for (const { worker, shares } of rows) {
        const sum = held(sums, worker, () => ({ ticks: 0, shares: [] }));
        sum.ticks += 1;
        shares.forEach((share, at) => { sum.shares[at] = (sum.shares[at] || 0) + share; });
      }
    }
    const head = (scope, name) => make("th", { scope, class: hue(story.lanes.get(name)) }, name || "nobody");
    const cell = (share, owner) => {
      const made = make("td", { class: hue(story.lanes.get(owner)), data: { share: share.toFixed(5) } }, `${(100 * share).toFixed(1)} %`);
      made.style.setProperty("--heat", `${45 * Math.sqrt(share)}%`);
      return made;
    };
    const rows = [...sums].map(([name, { ticks, shares }]) => make("tr", "", head("row", name), ...last.owners.map((owner, at) => cell((shares[at] || 0) / ticks, owner))));
    find("attention-table").replaceChildren(
      make("thead", "", make("tr", "", make("th", { scope: "col" }, "attends to"), ...last.owners.map((owner) => head("col", owner)))),
      make("tbody", "", ...rows),
    );
    say(find("attention-when"), whole ? `mean of ${several(all.length, "tick")}` : `tick ${amount(last.n + 1)}`);
  }
}
