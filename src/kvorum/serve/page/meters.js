// What a run has spent: the budget's nearest limit as a bar, the pace, and the ledger.

import { amount, clock, make, say, size } from "./dom.js";

const ENTRIES = [
  ["ticks", "ticks", amount], ["decoded", "decoded", amount], ["prefill", "prefilled", amount], ["latent", "latent", amount],
  ["kv_read", "KV read", size], ["kv_written", "KV written", size], ["seconds", "in the model", clock],
];

export class Meters {
  constructor(root) {
    this.label = make("span", "facts");
    this.bar = make("progress", { max: 1, value: 0, aria: { hidden: true } }); // the label says it
    this.pace = make("p", "pace");
    this.ledger = make("dl", "ledger");
    this.cells = new Map();
    root.append(make("div", "budget", this.label, this.bar), this.pace, this.ledger);
  }

  clear() {
    this.cells.clear();
    this.ledger.replaceChildren();
  }

  render(story, moment) {
    const spent = story.spent(moment);
    const wordless = spent.ticks - story.ticks.at(moment, 0); // they count, but no worker wrote in them
    const ticks = `${amount(spent.ticks - wordless)}${wordless > 0 ? ` + ${amount(wordless)} ${spent.latent ? "without words" : "reading"}` : ""}`;
    const limits = Object.entries(story.start?.budget || {});
    const nearest = limits
      .map(([name, limit]) => ({ name, limit, share: Math.min(1, (spent[name] || 0) / limit) }))
      .sort((a, b) => b.share - a.share)[0];
    if (nearest) {
      const show = nearest.name === "seconds" ? clock : amount;
      say(this.label, `${nearest.name === "ticks" ? ticks : show(spent[nearest.name] || 0)} of ${show(nearest.limit)} ${nearest.name === "seconds" ? "" : nearest.name}`.trim());
      this.bar.value = nearest.share;
    } else {
      say(this.label, `${ticks} ticks, no limit`);
      this.bar.value = 0;
    }
    say(this.pace, `${story.rate(moment).toFixed(1)} tokens/s`);
    for (const [order, [name, label, show]] of ENTRIES.entries()) {
      const value = spent[name];
      if (value === undefined || (name === "latent" && !value)) continue;
      if (!this.cells.has(name)) {
        const cell = make("dd", { data: { entry: name } });
        this.cells.set(name, cell);
        this.ledger.append(make("div", "", make("dt", "", label), cell));
        cell.parentNode.style.order = order; // some are known sooner
      }
      say(this.cells.get(name), name === "ticks" ? ticks : show(value));
    }
  }
}
