// Reading a trace file: one JSON object a line, the first one a start. A cut last line is left out, as `kvorum replay` does.
// Files of before blocks had numbers are brought into today's form; what they do not tell is reckoned.

const MOST = 200e6; // bytes

export class BadTrace extends Error {}

/** A file's events and its text. Throws BadTrace. */
export async function readTrace(file) {
  if (file.size > MOST) throw new BadTrace(`${file.name} is larger than 200 MB.`);
  const text = await file.text();
  return { events: parseTrace(text, file.name), text };
}

export function parseTrace(text, name) {
  const lines = text.split("\n");
  const events = [];
  lines.forEach((line, at) => {
    if (!line.trim()) return;
    let event;
    try {
      event = JSON.parse(line);
    } catch {
      if (at === lines.length - 1) return;
      throw new BadTrace(`Line ${at + 1} of ${name} is not JSON; the trace is damaged.`);
    }
    if (typeof event?.event !== "string") throw new BadTrace(`Line ${at + 1} of ${name} is not an event of a kvorum trace.`);
    events.push(event);
  });
  const start = events[0];
  if (start?.event !== "start" || start.format !== 1 || !Array.isArray(start.workers) || typeof start.task?.prompt !== "string") {
    throw new BadTrace(`${name} is not a kvorum trace of format 1.`);
  }
  return events.some((event) => event.event === "view" && event.items?.some((item) => item.length === 3)) ? numbered(events) : events;
}

/** Events without numbers and lengths, with both: blocks are told apart by name and by how often a view repeats it. */
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
