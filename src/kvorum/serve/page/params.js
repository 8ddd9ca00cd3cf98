// The fields for a program's parameters, made from what it declares.

import { make } from "./dom.js";

/** A field, and its `value()`: undefined where it was left as it is. */
export function paramField(param, programs) {
  const { input, value } = kinds[param.choices ? "choice" : param.kind]?.(param, programs) ?? written(param);
  input.id = `param-${param.name}`;
  const label = make("label", { class: input.type === "checkbox" ? "check" : "", htmlFor: input.id }, make("span", "", param.name), input);
  const hint = make("p", { class: "hint", id: `${input.id}-help` }, param.help);
  input.setAttribute("aria-describedby", hint.id);
  return { element: make("div", "param", label, hint), value };
}

const kinds = {
  choice: ({ choices, default: given }) => chosen(choices, given),
  program: ({ default: given }, programs) => chosen([...programs.keys()], given),
  boolean: ({ default: given }) => {
    if (given === null) return chosen([true, false], null);
    const input = make("input", { type: "checkbox", checked: given });
    return { input, value: () => (input.checked === given ? undefined : input.checked) };
  },
  integer: (param) => (param.items ? written(param) : number(param, "1")),
  number: (param) => (param.items ? written(param) : number(param, "any")),
};

/** One of some values; the first entry leaves it at the default. */
function chosen(values, given) {
  const input = make("select", {});
  const others = values.filter((value) => value !== given);
  input.append(new Option(given === null || given === "" ? "none" : given, ""), ...others.map((value, at) => new Option(value, at)));
  return { input, value: () => (input.value === "" ? undefined : others[Number(input.value)]) };
}

function number({ default: given, low, high }, step) {
  const input = make("input", { type: "number", placeholder: given === null ? "none" : given, step });
  if (low !== null) input.min = low;
  if (high !== null) input.max = high;
  return { input, value: () => (input.value === "" ? undefined : Number(input.value)) };
}

/** Text, or JSON where the parameter holds a list or a mapping. */
function written({ kind, default: given }) {
  const shown = given === null || given === "" ? "none" : given.trim?.() || JSON.stringify(given);
  const input = make("input", { type: "text", placeholder: kind === "text" ? shown : `${shown} (JSON)`, autocomplete: "off" });
  return { input, value: () => (input.value.trim() === "" ? undefined : read(kind, input.value.trim())) };
}

function read(kind, text) {
  if (kind === "text" && text[0] !== "[") return text;
  try {
    return JSON.parse(text);
  } catch {
    return text; // the server says what it takes
  }
}
