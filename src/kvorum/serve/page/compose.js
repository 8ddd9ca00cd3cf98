// The form that starts a run.

import { find, make, say, sends, submitted } from "./dom.js";
import { paramField } from "./params.js";
import { loadPrograms } from "./programs.js";

const LAST = "kvorum.last";
const EXAMPLES = [ // label, program, problem
  ["a letter", "plain", "Write a short, friendly letter to a neighbour whose dog barks at night."],
  ["a vote", "vote", "A train leaves at 14:20 and takes 95 minutes. When does it arrive?"],
  ["a team", "hogwild", "A ticket costs 9 euros, and children pay a third. What do 4 adults and 6 children pay together?"],
];

export class Compose {
  /** `start(request)` starts a run, or throws what is shown beside the button. */
  constructor(api, start) {
    this.api = api;
    this.programs = new Map();
    this.fields = new Map(); // parameter -> () => value or undefined
    this.form = find("compose-form");
    this.error = find("compose-error");
    find("program").addEventListener("change", () => this.choose());
    submitted(this.form, () => this.submit(start));
    sends(find("problem"));
  }

  /** Problems to begin with. */
  examples() {
    find("examples").replaceChildren(...EXAMPLES.map(([label, program, problem]) => make("button", { class: "quiet", on: { click: () => {
      find("problem").value = problem;
      if (this.programs.has(program)) find("program").value = program;
      this.choose();
      find("start").focus();
    } } }, label)));
  }

  async load() {
    const [{ programs, byDefault }, models, health] = await Promise.all([
      loadPrograms(this.api), this.api.get("/v1/models"), this.api.get("/health"),
    ]);
    this.programs = programs;
    const plain = models.data.filter((model) => !model.kvorum?.program).map((model) => model.id);
    find("model").replaceChildren(...plain.map((name) => new Option(name, name, name === health.model, name === health.model)));
    find("program").replaceChildren(...[...programs.keys()].map((name) => new Option(name, name)));
    this.most = health.limits.workers;
    const last = JSON.parse(localStorage.getItem(LAST) || "null");
    find("program").value = programs.has(last?.program) ? last.program : byDefault;
    this.choose();
    this.examples();
    if (last?.workers) find("workers").value = last.workers;
  }

  /** Show the chosen program's summary, workers and parameters. */
  choose() {
    const program = this.programs.get(find("program").value);
    if (!program) return;
    say(find("summary"), program.summary);
    find("workers").min = program.least_workers;
    find("workers").max = Math.min(this.most, program.most_workers);
    find("workers").value = program.workers;
    this.fields.clear();
    const made = program.params.map((param) => {
      const { element, value } = paramField(param, this.programs);
      this.fields.set(param.name, value);
      return element;
    });
    find("params").replaceChildren(...made);
    find("params-box").hidden = !made.length;
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
      attention: find("attention-on").checked ? 4 : 0,
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
