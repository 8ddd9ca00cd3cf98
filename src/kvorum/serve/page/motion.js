// Edits of views: what is new comes from where it was seen before, what moved flies to its new block, what is gone folds
// up; nothing of it where reduced motion is asked for.

import { calm, hue, make } from "./dom.js";

const PACE = { duration: 620, easing: "cubic-bezier(.3,.7,.2,1)" };
const LEFT = { transformOrigin: "0 0" };
const STAY = { ...PACE, fill: "forwards" };

const box = (element) => element.getBoundingClientRect();

export class Motion {
  constructor(root) {
    this.root = root;
    this.old = new Map(); // block -> where it was drawn, owner's row first
    this.moves = [];
  }

  /** Remember where everything is, and what is about to move. */
  before(rows, moves) {
    this.moves = moves;
    this.moved = new Set(moves.flatMap((move) => move.sources));
    this.old.clear();
    if (calm()) return;
    for (const row of rows.values()) {
      for (const { element, item } of row.segments.values()) {
        if (item.gap) continue;
        const own = item.block.owner === row.lane;
        if (own || !this.old.has(item.block)) this.old.set(item.block, box(element));
      }
    }
  }

  /** A segment that no longer stands in its row. */
  gone({ element, item }) {
    const moved = !item.gap && this.moved.has(item.block);
    if (calm() || moved) {
      element.remove();
      return;
    }
    element.classList.add("leaving");
    const end = element.animate(
      [{ opacity: 1, transform: "none" }, { opacity: 0, transform: "translateY(60%) scaleY(.1)" }],
      STAY,
    );
    end.onfinish = () => element.remove();
  }

  /** Everything is where it belongs now: let the new things arrive. */
  after(rows, forward) {
    const arrive = forward && !calm();
    for (const row of rows.values()) {
      for (const segment of row.segments.values()) {
        const { element, item, fresh } = segment;
        segment.fresh = false;
        if (!fresh || !arrive) continue;
        const from = item.gap ? null : this.old.get(item.block);
        if (from) this.fly(from, element);
        else element.animate([{ opacity: 0, transform: "scaleY(.2)" }, { opacity: 1, transform: "none" }], PACE);
      }
    }
    if (arrive) for (const move of this.moves) this.carry(rows, move);
  }

  /** Let `element` come from where its block was seen: a fork, or a block that was handed over. */
  fly(from, element) {
    const to = box(element);
    if (!to.width || !from.width) return;
    const shift = `translate(${from.left - to.left}px, ${from.top - to.top}px) scaleX(${from.width / to.width})`;
    element.animate(
      [{ transform: shift, ...LEFT, zIndex: 3, opacity: 0.6 }, { transform: "none", ...LEFT, zIndex: 3, opacity: 1 }],
      PACE,
    );
  }

  /** Let a finished step fly from its writer's row to the end of the block that it moved to. */
  carry(rows, { block, from, to, lane, sources }) {
    const old = this.old.get(sources[0]);
    const row = rows.get(lane);
    const segment = row && [...row.segments.values()].find(({ item }) => item.block === block);
    if (!old || !segment) return;
    const frame = box(this.root);
    const place = box(segment.element);
    const length = Math.max(1, block.lengths.last);
    const target = place.left + (place.width * from) / length;
    const ghost = make("div", { class: `ghost ${hue(lane)}`, aria: { hidden: "true" } });
    Object.assign(ghost.style, {
      left: `${old.left - frame.left}px`, top: `${old.top - frame.top}px`, width: `${old.width}px`, height: `${old.height}px`,
    });
    this.root.append(ghost);
    const scale = Math.max(0.05, (place.width * (to - from)) / length / Math.max(1, old.width));
    const flight = ghost.animate(
      [
        { transform: "none", opacity: 1, ...LEFT },
        { transform: `translate(${target - old.left}px, ${place.top - old.top}px) scaleX(${scale})`, opacity: 0.7, ...LEFT },
      ],
      STAY,
    );
    flight.onfinish = () => ghost.remove();
  }
}
