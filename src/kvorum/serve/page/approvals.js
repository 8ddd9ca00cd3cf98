// Calls of tools that wait for a person's word: what is to be called, with what, and two buttons.

import { hue, make } from "./dom.js";
import { harmless } from "./lane.js";

export class Approvals {
  /** `answer(kind, number)` sends "approve" or "refuse" for a call. */
  constructor(root, { answer, tell }) {
    Object.assign(this, { root, answer, tell, key: "" });
  }

  render(story, live) {
    const waiting = live ? story.waiting : [];
    const key = waiting.map((call) => call.n).join();
    if (key === this.key) return;
    this.key = key;
    if (waiting.length) this.tell(`${harmless(waiting.at(-1).tool)} waits for your word.`);
    this.root.hidden = !waiting.length;
    this.root.replaceChildren(...waiting.map((call) => this.item(call)));
  }

  item({ n, tool, args, lane }) {
    const button = (kind, label, name) => make("button", { class: name, ariaLabel: `${label} the call of ${tool}`, on: { click: (event) => {
      for (const each of event.target.parentNode.querySelectorAll("button")) each.disabled = true;
      this.answer(kind, n);
    } } }, label);
    return make(
      "li", hue(lane), make("p", "", make("strong", "", harmless(tool)), " waits for your word"),
      make("pre", { tabIndex: 0 }, make("code", "", harmless(args))), button("approve", "Approve", "primary"), button("refuse", "Refuse", ""),
    );
  }
}
