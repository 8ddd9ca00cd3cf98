// Many questions of one text, or the fields of a form: what `kvorum ask` and `kvorum fields` do.

import { amount, clock, find, held, make, on, say, sends, several, submitted } from "./dom.js";
import { harmless } from "./lane.js";
import { markdown } from "./markdown.js";

const MOST = 4_000_000; // characters of a file
const EXAMPLE = { "document-text": "md", questions: "questions.txt", schema: "schema.json", tools: "tools.json" };

const part = (name) => find(`documents-${name}`);

export class Documents {
  constructor(api) {
    this.api = api;
    this.files = new Map(); // name -> text
    this.abort = null;
    this.error = part("error");
    const form = part("form");
    submitted(form, () => this.submit());
    sends(form);
    form.addEventListener("change", () => this.choose());
    on("documents-stop", () => this.leave());
    on("documents-example", () => this.example());
    on("documents-open", () => part("files").click());
    part("files").addEventListener("change", () => {
      this.take([...part("files").files]);
      part("files").value = "";
    });
    this.choose();
  }

  get kind() {
    return ["form", "tools"].find((kind) => find(`as-${kind}`).checked) || "questions";
  }

  choose() {
    const { kind } = this;
    find("questions-box").hidden = find("quote").parentElement.hidden = kind !== "questions";
    find("schema-box").hidden = kind !== "form";
    find("tools-box").hidden = kind !== "tools";
    say(part("start"), { questions: "Ask", form: "Fill in", tools: "Send" }[kind]);
  }

  async example() {
    for (const [id, end] of Object.entries(EXAMPLE)) find(id).value = await (await this.api.good(`/page/minutes.${end}`)).text();
    part("start").focus();
  }

  /** Read files as text; what is none is refused by name. */
  async take(files) {
    say(this.error, "");
    for (const file of files) {
      const text = file.size > MOST ? null : await file.text();
      if (text === null) this.refuse(`${file.name} has more than ${amount(MOST)} bytes; kvorum ask --split reads it.`);
      else if (text.includes("\u0000") || text.startsWith("%PDF")) this.refuse(`${file.name} is no text; kvorum ask FILE reads PDF and HTML.`);
      else this.files.set(file.name.slice(0, 80), text);
    }
    this.list();
  }

  refuse(why) {
    say(this.error, `${this.error.textContent} ${why}`.trim());
  }

  list() {
    find("document-list").replaceChildren(...[...this.files].map(([name, text]) => {
      const remove = () => { this.files.delete(name); this.list(); part("open").focus(); };
      const button = make("button", { class: "quiet", on: { click: remove }, ariaLabel: `Leave out ${name}` }, "leave out");
      return make("li", "", `${name}, ${amount(text.length)} characters`, button);
    }));
  }

  /** What the person typed stands beside the files. */
  texts() {
    const texts = Object.fromEntries(this.files);
    const typed = find("document-text").value;
    if (typed.trim()) texts[this.files.size ? "typed" : "text"] = typed;
    return texts;
  }

  leave() {
    this.abort?.abort();
    this.abort = null;
  }

  async submit() {
    this.leave();
    say(this.error, "");
    const texts = this.texts();
    try {
      await { questions: () => this.ask(texts), form: () => this.fill(texts), tools: () => this.call(texts) }[this.kind]();
    } catch (error) {
      if (error.name !== "AbortError") say(this.error, error.message);
    }
  }

  async ask(texts) {
    const questions = find("questions").value.split("\n").map((line) => line.trim()).filter(Boolean);
    if (!questions.length) throw new Error("Write at least one question, each on a line of its own.");
    const sheet = new Sheet(questions);
    const body = { documents: texts, questions, quote: find("quote").checked, stream: true };
    await this.run("/v1/ask", body, (event) => {
      if (event.type === "answer.delta") sheet.add(event.index, event.delta);
      else if (event.type === "answer.done") sheet.done(event.index, event.text ?? "", event.finish);
      else if (event.type === "result") {
        event.answers.forEach((answer, at) => sheet.support(at, answer.quote));
        this.facts(event.usage, questions.length, "question");
      }
    });
  }

  async fill(texts) {
    const schema = read("schema", "The form is");
    const document = Object.values(texts).join("\n\n");
    if (!document.trim()) throw new Error("Give a text to fill the form from.");
    const sheet = new Sheet([]);
    await this.run("/v1/fields", { document, schema, stream: true }, (event) => {
      if (event.type === "field.delta") sheet.add(sheet.row(event.name), event.delta, true);
      else if (event.type === "field.done") sheet.done(sheet.row(event.name), JSON.stringify(event.value), event.note, true);
      else if (event.type === "result") {
        sheet.whole(event.value, event.problems);
        this.facts(event.usage, event.fields.length, "field");
      }
    });
  }

  /** The text as a message; calls of tools are shown, not carried out. */
  async call(texts) {
    const tools = read("tools", "The tools are");
    const content = Object.values(texts).join("\n\n");
    const sheet = new Sheet([]);
    const body = { model: (await this.api.get("/health")).model, messages: [{ role: "user", content }], tools, max_tokens: 512, stream: true };
    const reply = sheet.make("Reply");
    await this.run("/v1/chat/completions", body, ({ choices: [choice] }) => {
      if (!choice) return;
      sheet.add(reply, choice.delta.content || "");
      for (const call of choice.delta.tool_calls || []) {
        const { name, arguments: more = "" } = call.function;
        sheet.add(sheet.row(name ? `${call.index + 1}. ${name}` : [...sheet.names.keys()][call.index]), more);
      }
      if (choice.finish_reason) for (const at of sheet.rows.keys()) sheet.done(at, sheet.rows[at].text, choice.finish_reason, at !== reply);
    });
    say(part("facts"), "Nothing was carried out.");
  }

  /** Post, and hand each event to `take` until the stream ends or the person leaves. */
  async run(path, body, take) {
    const abort = new AbortController();
    this.abort = abort;
    this.busy(true);
    this.since = performance.now();
    say(part("facts"), "The text is read…");
    try {
      let told = false;
      for await (const event of this.api.stream(path, body, abort.signal)) {
        if (event.type === "error" || event.error) throw new Error(event.error?.message || event.message);
        told ||= event.type === "result" || Boolean(event.choices?.[0]?.finish_reason);
        take(event);
      }
      if (!told) throw new Error("The server ended before all was written.");
    } catch (error) {
      say(part("facts"), abort.signal.aborted ? "Stopped." : "");
      throw error;
    } finally {
      if (this.abort === abort || this.abort === null) this.busy(false);
    }
  }

  busy(is) {
    part("stop").hidden = !is;
    part("start").disabled = is;
    find("answers").ariaBusy = is;
  }

  facts(usage, count, noun) {
    const seconds = (performance.now() - this.since) / 1000;
    const { ticks } = usage.kvorum;
    const words = `${several(count, noun)} in ${clock(seconds)}: ${amount(usage.input_tokens)} tokens read, ${amount(usage.output_tokens)} written in ${amount(ticks)} forward passes.`;
    say(part("facts"), words);
  }
}

/** What stands in a field, as JSON. */
function read(id, what) {
  try {
    return JSON.parse(find(id).value);
  } catch (error) {
    throw new Error(`${what} no JSON: ${error.message}`);
  }
}

/** The answers, each under its question, as they are written. */
class Sheet {
  constructor(questions) {
    this.root = find("answers");
    this.rows = [];
    this.names = new Map();
    this.since = performance.now();
    this.root.replaceChildren();
    for (const question of questions) this.make(question);
  }

  make(question) {
    const answer = make("div", "answer written");
    const facts = make("p", "facts");
    const element = make("li", `hue${this.rows.length % 8}`, make("h3", "", harmless(question)), answer, facts);
    this.root.append(element);
    this.rows.push({ element, answer, facts, text: "" });
    return this.rows.length - 1;
  }

  /** The row of a field, which is made when it is first heard of. */
  row(name) {
    return held(this.names, name, () => this.make(name));
  }

  add(at, words) {
    const row = this.rows[at];
    if (row.over) return; // its quotation is being chosen
    row.text += words;
    say(row.answer, harmless(row.text));
    row.element.classList.add("writing");
  }

  done(at, text, how, exact = false) {
    const row = this.rows[at];
    row.text = text;
    row.over = true;
    row.element.classList.remove("writing");
    if (exact) say(row.answer, harmless(text));
    else row.answer.replaceChildren(...markdown(harmless(text)));
    const cut = { length: "cut at its most tokens", loop: "cut: it went on in circles", cut: "cut at the budget", none: "not answered" }[how];
    say(row.facts, [clock((performance.now() - this.since) / 1000), cut || (exact && how) || ""].filter(Boolean).join(" · "));
  }

  support(at, quote) {
    if (!quote) return;
    this.rows[at].element.append(make("blockquote", "", harmless(quote.text), make("cite", "", harmless(`${quote.document}, ${quote.place}`))));
  }

  whole(value, problems) {
    const wrong = Object.entries(problems).map(([place, why]) => `${place}: ${why}`);
    const code = make("pre", { tabIndex: 0, ariaLabel: "The filled form" }, make("code", "", harmless(JSON.stringify(value, null, 2))));
    this.root.append(make("li", "whole", make("h3", "", "The form"), code, wrong.length ? make("p", "facts", wrong.join("; ")) : null));
  }
}
