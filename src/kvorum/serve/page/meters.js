// What a run has spent: the budget's nearest limit as a bar, the pace, and the ledger.

import { amount, clock, make, say, size } from "./dom.js";

const ENTRIES = [
  ["ticks", "ticks", amount], ["decoded", "decoded", amount], ["prefill", "prefilled", amount], ["latent", "latent", amount],
  ["kv_read", "KV read", size], ["kv_written", "KV written", size], ["seconds", "in the model", clock],
];

export class Meters {
  constructor({ bar, label, pace, ledger }) {
    Object.assign(this, { bar, label, pace, ledger });
    this.cells = new Map();
  }

  clear() {
    this.cells.clear();
    this.ledger.replaceChildren();
  }

  render(story, moment) {
    const spent = story.spent(moment);
    const limits = Object.entries(story.start?.budget || {});
    const nearest = limits
      .map(([name, limit]) => ({ name, limit, share: Math.min(1, (spent[name] || 0) / limit) }))
      .sort((a, b) => b.share - a.share)[0];
    if (nearest) {
      const show = nearest.name === "seconds" ? clock : amount;
      say(this.label, `${show(spent[nearest.name] || 0)} of ${show(nearest.limit)} ${nearest.name === "seconds" ? "" : nearest.name}`.trim());
      this.bar.value = nearest.share;
    } else {
      say(this.label, `${amount(spent.ticks)} ticks, no limit`);
      this.bar.value = 0;
    }
    say(this.pace, `${story.rate(moment).toFixed(1)} tokens/s`);
    for (const [name, label, show] of ENTRIES) {
      const value = spent[name];
      if (value === undefined || (name === "latent" && !value)) continue;
      if (!this.cells.has(name)) {
        const cell = make("dd", { data: { entry: name } });
        this.cells.set(name, cell);
        this.ledger.append(make("div", {}, make("dt", {}, label), cell));
      }
      const reading = name === "ticks" ? value - story.ticks.at(moment, 0) : 0; // ticks in which nobody wrote
      say(this.cells.get(name), reading > 0 ? `${amount(value - reading)} + ${amount(reading)} reading` : show(value));
    }
  }
}
