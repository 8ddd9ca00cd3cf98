// LaTeX as MathML, by Temml, which is fetched from this server when the first formula is there. What it cannot read
// stands as it was written. Nothing of a formula is believed: no link, no picture, no class, bounded length and macros.

import { make } from "./dom.js";

const LONGEST = 2000; // characters
let loading = null;

function load() {
  loading ??= new Promise((done) => {
    const script = make("script", { src: new URL("vendor/temml.min.js", import.meta.url).href });
    script.addEventListener("load", () => done(globalThis.temml));
    script.addEventListener("error", () => { loading = null; done(null); });
    document.head.append(script);
  });
  return loading;
}

/** A formula: its source as code, its picture in its place once it is made. */
export function formula(source, display = false) {
  const plain = make("code", "formula", source);
  const element = make(display ? "div" : "span", { class: display ? "math display" : "math", tabIndex: display ? 0 : -1 }, plain);
  if (!display) element.removeAttribute("tabindex");
  if (source.length <= LONGEST) load().then((temml) => temml && set(temml, source, element, display));
  return element;
}

function set(temml, source, element, display) {
  const made = make("span");
  try {
    temml.render(source, made, { displayMode: display, throwOnError: true, trust: false, maxExpand: 200, maxSize: [20, 20], annotate: true });
  } catch {
    return; // its source stays
  }
  element.replaceChildren(...made.childNodes);
}
