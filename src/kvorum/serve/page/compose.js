// The form that starts a run: the problem, the program with its parameters, workers, model and budget.

import { find, make, say } from "./dom.js";

const LAST = "kvorum.last";

export class Compose {
  /** `start(request)` starts a run and may throw; its message is shown beside the button. */
  constructor(api, start) {
    this.api = api;
    this.programs = new Map();
    this.fields = new Map(); // parameter -> () => value or undefined
    this.form = find("compose-form");
    this.error = find("compose-error");
    find("program").addEventListener("change", () => this.choose());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit(start);
    });
    find("problem").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
    });
  }

  async load() {
    const [programs, models, health] = await Promise.all([
      this.api.get("/v1/programs"), this.api.get("/v1/models"), this.api.get("/health"),
    ]);
    this.programs = new Map(programs.data.map((program) => [program.name, program]));
    const plain = models.data.filter((model) => !model.kvorum?.program).map((model) => model.id);
    find("model").replaceChildren(...plain.map((name) => new Option(name, name, name === health.model, name === health.model)));
    find("program").replaceChildren(...programs.data.map((program) => new Option(program.name, program.name)));
    const limits = health.limits || {};
    if (limits.workers) find("workers").max = String(limits.workers);
    const last = JSON.parse(localStorage.getItem(LAST) || "null");
    find("program").value = this.programs.has(last?.program) ? last.program : this.programs.has("hogwild") ? "hogwild" : programs.data[0]?.name;
    this.choose();
    if (last?.workers) find("workers").value = String(last.workers);
  }

  /** Show the chosen program's summary, workers and parameters. */
  choose() {
    const program = this.programs.get(find("program").value);
    if (!program) return;
    say(find("summary"), program.summary);
    find("workers").value = String(program.workers);
    this.fields.clear();
    const made = program.params.map((param) => this.field(param));
    find("params").replaceChildren(...made);
    find("params-box").hidden = !made.length;
  }

  /** A parameter's field. Left as it is, it is not sent: the default stays the program's own. */
  field({ name, default: given, type, choices }) {
    const id = `param-${name}`;
    let input;
    if (choices || (type === "boolean" && given === null)) {
      const words = choices ?? ["true", "false"];
      const first = given === null ? "the program’s" : given === "" ? "as the problem says" : given;
      input = make("select", { id });
      input.append(new Option(first, ""), ...words.filter((word) => word !== given).map((word) => new Option(word, word)));
      this.fields.set(name, () => (input.value === "" ? undefined : choices ? input.value : input.value === "true"));
    } else if (type === "boolean") {
      input = make("input", { type: "checkbox", id, checked: given });
      this.fields.set(name, () => (input.checked === given ? undefined : input.checked));
    } else {
      const number = type === "integer" || type === "number";
      const shown = given === null ? "the program’s" : given === "" ? "nothing" : typeof given === "string" ? given : JSON.stringify(given);
      input = make("input", { type: number ? "number" : "text", id, placeholder: shown, step: type === "number" ? "any" : "1", autocomplete: "off" });
      this.fields.set(name, () => {
        const text = input.value.trim();
        if (text === "") return undefined;
        return number ? Number(text) : type === "string" ? text : plain(text);
      });
    }
    return make("label", { class: input.type === "checkbox" ? "check" : "", htmlFor: id }, make("span", {}, name), input);
  }

  request() {
    const names = find("names").value.split(",").map((name) => name.trim()).filter(Boolean);
    const params = {};
    for (const [name, value] of this.fields) if (value() !== undefined) params[name] = value();
    const sampling = {};
    for (const name of ["temperature", "top_p"]) if (find(name).value !== "") sampling[name] = Number(find(name).value);
    const request = {
      problem: find("problem").value,
      model: find("model").value,
      program: find("program").value,
      workers: names.length ? names : Number(find("workers").value),
      params,
      budget: { [find("budget-unit").value]: Number(find("budget").value) },
      paused: find("paused").checked,
    };
    if (Object.keys(sampling).length) request.sampling = sampling;
    if (find("seed").value !== "") request.seed = Number(find("seed").value);
    return request;
  }

  async submit(start) {
    const button = find("start");
    say(this.error, "");
    button.disabled = true;
    try {
      const request = this.request();
      await start(request);
      localStorage.setItem(LAST, JSON.stringify({ program: request.program, workers: request.workers.length || request.workers }));
    } catch (error) {
      say(this.error, error.message);
    } finally {
      button.disabled = false;
    }
  }
}

/** What somebody typed for a parameter of any type: JSON where it is, else the text itself. */
function plain(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
