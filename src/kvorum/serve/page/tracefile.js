// Reads a trace file: a JSON object a line, the first a start. A cut last line is left out. Files of before blocks had
// numbers are brought into today's form.

const MOST = 200e6; // bytes
const FORMATS = [1, 2, 3, 4];

/** A file's events and its text. Throws an Error that says what is wrong. */
export async function readTrace(file) {
  if (file.size > MOST) throw new Error(`${file.name} is larger than 200 MB.`);
  const words = await file.text();
  return { events: parseTrace(words, file.name), text: words };
}

export function parseTrace(words, name) {
  const lines = words.split("\n");
  const events = [];
  lines.forEach((line, at) => {
    if (!line.trim()) return;
    const bad = (what) => new Error(`Line ${at + 1} of ${name} ${what}`);
    let event;
    try {
      event = JSON.parse(line);
    } catch {
      if (at === lines.length - 1) return;
      throw bad("is not JSON; the trace is damaged.");
    }
    if (typeof event?.event !== "string") throw bad("is not an event of a kvorum trace.");
    const wrong = fault(event);
    if (wrong) throw bad(`(${event.event}) lacks its ${wrong}; the trace is damaged.`);
    events.push(event);
  });
  const start = events[0];
  if (start?.event !== "start" || !FORMATS.includes(start.format)) {
    throw new Error(`${name} is not a kvorum trace of format 1 to 4.`);
  }
  return events.some((event) => event.event === "view" && event.items?.some((item) => item.length === 3)) ? numbered(events) : events;
}

const text = (value) => typeof value === "string";
const number = (value) => Number.isFinite(value);
const object = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const maybe = (kind) => (value) => value === undefined || value === null || kind(value);
const list = (kind) => (value) => Array.isArray(value) && value.every(kind);
const numbers = list(number);
const item = (value) => Array.isArray(value) && [3, 5, 6].includes(value.length)
  && maybe(text)(value[0]) && number(value[1]) && value.slice(2).every(maybe(number)) && (value[3] !== null || number(value[4]));
const row = (value) => object(value) && text(value.worker) && text(value.text) && number(value.fed) && maybe(text)(value.given);
const shares = (value) => object(value) && text(value.worker) && list(numbers)(value.shares);
const task = (value) => object(value) && text(value.prompt);

/** What of each kind of event is shown, and of which kind it must be. */
const HOLDS = {
  start: { workers: list(text), task, ends: maybe(numbers), budget: maybe(object) },
  view: { worker: text, items: list(item) },
  forward: { seconds: number, tokens: maybe(number), rows: maybe(list(numbers)) },
  tick: { n: number, rows: list(row), seconds: maybe(number), ledger: maybe(object) },
  attention: { n: number, owners: list(text), rows: list(shares) },
  move: { worker: text, into: text, tokens: number, from: maybe(list(numbers)) },
  note: { kind: text, worker: maybe(text), text: maybe(text) },
  command: { kind: text, worker: maybe(text), text: maybe(text) },
  end: { ledger: object, answer: maybe(text) },
};

/** The first thing that an event should hold and does not; undefined: all is there. */
function fault(event) {
  const held = event.event === "start" && !FORMATS.includes(event.format) ? {} : HOLDS[event.event] || {};
  return Object.keys(held).find((key) => !held[key](event[key]));
}

/** Events with numbers and lengths: blocks are told apart by name and by how often a view repeats it. */
function numbered(events) {
  const blocks = new Map(); // name#n -> {number, length}
  const views = new Map(); // worker -> its own block
  let waiting = []; // tokens of forwards that no block is known for yet
  let fresh = []; // own blocks of views since the last forward
  const block = (key, name) => {
    if (!blocks.has(key)) blocks.set(key, { number: blocks.size, name, length: 0 });
    return blocks.get(key);
  };
  const view = (event) => {
    const counts = new Map();
    const items = event.items.map(([name, lo, hi], at) => {
      if (name === "gap") return [name, 0, hi, null, hi];
      const last = counts.get(name);
      const count = last ? last.count + (lo < last.end ? 1 : 0) : 0;
      counts.set(name, { count, end: hi ?? Infinity });
      const found = block(`${name}#${count}`, name);
      const own = at === event.items.length - 1;
      if (!own && hi === null && !found.length && waiting.length) found.length = waiting.shift();
      found.length = Math.max(found.length, hi ?? lo);
      if (own) {
        views.set(event.worker, found);
        fresh.push(found);
      }
      return [name, lo, hi, found.number, found.length];
    });
    return { ...event, items };
  };
  const forward = (event) => {
    const into = fresh.length ? fresh : views.size && event.tokens <= views.size ? [...views.values()].slice(0, event.tokens) : [];
    fresh = [];
    if (!into.length) waiting.push(event.tokens);
    const rows = into.map((found) => [found, Math.floor(event.tokens / into.length)]);
    for (const [found, tokens] of rows) found.length += tokens;
    return { ...event, rows: rows.map(([found, tokens]) => [found.number, tokens]) };
  };
  return events.map((event) => {
    if (event.event === "view") return view(event);
    if (event.event === "forward") return forward(event);
    if (event.event === "tick") {
      fresh = [];
      for (const row of event.rows) if (views.has(row.worker)) views.get(row.worker).length += row.fed;
    }
    if (event.event === "move") {
      const into = block(`${event.into}#0`, event.into);
      into.length += event.tokens;
      const own = views.get(event.worker);
      return { ...event, block: into.number, from: own ? [[own.number, 0, own.length]] : [] };
    }
    return event;
  });
}
