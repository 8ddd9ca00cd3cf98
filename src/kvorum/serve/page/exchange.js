// Who used whose words, as arrows and as a table.

import { hue, make, say } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const BASE = 104; // where the workers stand
const UNDER = 30;

function draw(tag, properties, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(properties)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export class Exchange {
  constructor(root, table, note) {
    Object.assign(this, { root, table, note, key: "" });
  }

  clear() {
    this.key = "";
    this.root.replaceChildren();
    this.table.replaceChildren();
  }

  render(story, moment) {
    const pairs = story.echoes.at(moment);
    const lanes = [...story.lanes.values()];
    const key = JSON.stringify([lanes.length, pairs.map((p) => [p.reader.index, p.source.index, p.echo, p.twin, p.value, p.name])]);
    if (key === this.key) return;
    this.key = key;
    this.arrows(lanes, pairs);
    this.rows(pairs);
    this.root.closest("section").hidden = lanes.length < 2;
    const all = (kind) => pairs.reduce((sum, pair) => sum + pair[kind], 0);
    say(this.note, pairs.some(weight) ? `${all("echo")} words taken up (five or more in a row, in view before), ${all("value")} numbers, ${all("name")} by name` : "nothing that was in view");
  }

  arrows(lanes, pairs) {
    const width = 320;
    const place = (lane) => ((lane.index + 0.5) * width) / lanes.length;
    const used = pairs.filter(weight); // what nobody could have seen is in the table only
    const widest = Math.max(0, ...used.map((pair) => Math.abs(place(pair.source) - place(pair.reader))));
    const top = BASE - 18 - 0.75 * rise(widest, lanes.length);
    const picture = draw("svg", { viewBox: `0 ${top} ${width} ${BASE + UNDER - top}`, "aria-hidden": "true" });
    for (const pair of used.sort((a, b) => weight(b) - weight(a))) picture.append(arrow(pair, place, lanes.length));
    for (const lane of lanes) {
      const x = place(lane);
      const radius = Math.min(9, width / lanes.length / 3);
      picture.append(draw("circle", { cx: x, cy: BASE, r: radius, class: hue(lane) }));
      if (width / lanes.length > 44) picture.append(draw("text", { x, y: BASE + 23, class: hue(lane) }, lane.name.slice(0, 9)));
    }
    this.root.replaceChildren(picture);
  }

  rows(pairs) {
    const told = pairs.map(({ reader, source, echo, twin, value, name }) => make(
      "tr", { data: { reader: reader.name, source: source.name } },
      make("th", { scope: "row", class: hue(reader) }, reader.name), make("td", hue(source), source.name),
      ...[echo, value, name, twin].map((count) => make("td", "", count)),
    ));
    const heads = ["worker", "used words of", "words", "numbers", "by name", "unseen"].map((head) => make("th", { scope: "col" }, head));
    this.table.replaceChildren(make("thead", "", make("tr", "", ...heads)), make("tbody", "", ...told));
  }
}

const weight = (pair) => pair.echo + 3 * (pair.value + pair.name);

/** How high an arrow over such a distance rises. */
const rise = (distance, lanes) => Math.min(BASE, 22 + (distance * 0.5 * Math.min(lanes, 6)) / 4);

/** From the one whose words they were to the one who used them, in the first one's colour. */
function arrow(pair, place, lanes) {
  const [from, to] = [place(pair.source), place(pair.reader)];
  const height = rise(Math.abs(to - from), lanes) * (to > from ? 1 : 0.74); // both ways are seen
  const top = BASE - 10;
  const width = Math.min(7, 1 + Math.sqrt(weight(pair)) / 2);
  const path = draw("path", {
    d: `M ${from} ${top} C ${from} ${top - height}, ${to} ${top - height}, ${to} ${top - 3}`,
    class:hue(pair.source), "stroke-width": width.toFixed(1),
  });
  const head = draw("path", { d: `M ${to - 4} ${top - 5} L ${to} ${top + 2} L ${to + 4} ${top - 5} Z`, class: `${hue(pair.source)} head` });
  const words = `${pair.reader.name} took up ${pair.echo} words and ${pair.value} numbers of ${pair.source.name} and named it ${pair.name} times`;
  return draw("g", {}, draw("title", {}, words), path, head);
}
