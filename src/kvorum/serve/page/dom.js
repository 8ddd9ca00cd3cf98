// What every part needs to make elements. Text goes in as text nodes only, never as markup.

/** An element with properties (a text is its class), `dataset`, `aria` and children: elements, strings, or nothing. */
export function make(tag, given = {}, ...children) {
  const { class: name, data = {}, aria = {}, on = {}, ...properties } = typeof given === "string" ? { class: given } : given;
  const element = document.createElement(tag);
  if (tag === "button") element.type = tag;
  if (name) element.className = name;
  Object.assign(element.dataset, data);
  for (const [key, value] of Object.entries(aria)) element.setAttribute(`aria-${key}`, value);
  for (const [key, value] of Object.entries(on)) element.addEventListener(key, value);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const find = (id) => document.getElementById(id);
export const on = (id, act) => find(id).addEventListener("click", act);

/** What a map holds for a key; made where there is nothing yet. */
export function held(map, key, first) {
  if (!map.has(key)) map.set(key, first());
  return map.get(key);
}

/** Set text only where it differs, so that nothing is announced or laid out twice. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A worker's colour; beyond eight they repeat, with a pattern. */
export const hue = (lane) => (lane ? `hue${lane.index % 8}${lane.index >= 8 ? " again" : ""}` : "hueless");

/** Where a run is shown. */
export const place = (id, tick = "") => `#/run/${encodeURIComponent(id)}${tick === "" ? "" : `/${tick}`}`;

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** "1 worker", "2 workers". */
export const several = (count, noun) => `${amount(count)} ${noun}${count === 1 ? "" : "s"}`;

export const submitted = (form, act) => form.addEventListener("submit", (event) => {
  event.preventDefault();
  act();
});

/** Ctrl + Enter in `field` sends its form. */
export const sends = (field) => field.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) (field.form || field).requestSubmit();
});

export function clock(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
}

export function amount(number) {
  return Math.round(number).toLocaleString("en-GB").replaceAll(",", "\u202f");
}

export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; bytes >= 1024 && at < units.length - 1; at += 1) bytes /= 1024;
  return `${bytes.toFixed(at && bytes < 100 ? 1 : 0)} ${units[at]}`;
}
