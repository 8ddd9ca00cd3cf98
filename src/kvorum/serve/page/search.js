// Searching in what the workers have written, at the moment that is shown and after it.

import { find, on, say } from "./dom.js";

export class Search {
  /** `show(lane, paragraph, moment)` brings a paragraph into sight. */
  constructor(show) {
    this.show = show;
    this.story = null;
    this.at = -1;
    this.field = find("search-text");
    this.field.addEventListener("input", () => { this.at = -1; this.go(1); });
    this.field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.go(event.shiftKey ? -1 : 1);
    });
    on("search-back", () => this.go(-1));
    on("search-on", () => this.go(1));
  }

  open(story) {
    this.story = story;
    this.at = -1;
    this.field.value = "";
    this.tell([]);
  }

  /** All places, in the order in which they were written. */
  places() {
    const wanted = this.field.value.trim().toLocaleLowerCase();
    if (!wanted || !this.story) return [];
    const found = [];
    for (const lane of this.story.lanes.values()) {
      for (const paragraph of lane.paragraphs.filter((each) => each.gone === Infinity)) {
        const text = paragraph.text.toLocaleLowerCase();
        for (let from = text.indexOf(wanted); from >= 0; from = text.indexOf(wanted, from + wanted.length)) {
          found.push({ lane, paragraph, moment: paragraph.momentOf(from + wanted.length) });
        }
      }
    }
    return found.sort((a, b) => a.moment - b.moment);
  }

  go(by) {
    const places = this.places();
    if (places.length) {
      this.at = this.at < 0 ? (by > 0 ? 0 : places.length - 1) : (this.at + by + places.length) % places.length;
      const { lane, paragraph, moment } = places[this.at];
      this.show(lane, paragraph, moment);
    }
    this.tell(places);
  }

  tell(places) {
    const some = this.field.value.trim() !== "";
    find("search-back").disabled = find("search-on").disabled = !places.length;
    say(find("search-count"), !some ? "" : places.length ? `${this.at + 1} of ${places.length}` : "not found");
  }
}
