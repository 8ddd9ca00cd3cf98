// Calls of the server, and a run's events as they come. Asks for the key where one is wanted.

const ROOT = new URL("..", import.meta.url); // also behind a proxy
const KEY = "kvorum.key";
const WAIT = [300, 600, 1200, 2500, 5000]; // ms between attempts
export const OVER = new Set(["finished", "stopped", "failed"]);

class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Api {
  /** `ask` returns a promise of a key, or null where the person gives none. */
  constructor(ask) {
    this.ask = ask;
    this.asking = null;
  }

  async fetch(path, options = {}) {
    const key = sessionStorage.getItem(KEY);
    const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    const response = await fetch(new URL(path.slice(1), ROOT), { ...options, headers });
    if (response.status !== 401) return response;
    this.asking ??= this.ask().finally(() => { this.asking = null; });
    const given = await this.asking;
    if (!given) throw new ApiError(401, "The server wants a key.");
    sessionStorage.setItem(KEY, given);
    return this.fetch(path, options);
  }

  /** The response, where it is a good one. Throws ApiError, or AbortError where it was asked to end. */
  async good(path, options) {
    const response = await this.fetch(path, options).catch((error) => {
      throw error.name === "AbortError" || error instanceof ApiError ? error : new ApiError(0, "The server does not answer.");
    });
    if (response.ok) return response;
    const reply = await response.json().catch(() => ({}));
    throw new ApiError(response.status, reply.error?.message || `The server answered ${response.status}.`);
  }

  async call(method, path, body) {
    const json = body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
    const response = await this.good(path, { method, ...json });
    return response.json().catch(() => ({}));
  }

  get(path) {
    return this.call("GET", path);
  }

  post(path, body = {}) {
    return this.call("POST", path, body);
  }

  /** Post a body, and yield the events of the stream that answers it, each read as JSON. */
  async *stream(path, body, signal) {
    const headers = { "Content-Type": "application/json", Accept: "text/event-stream" };
    const response = await this.good(path, { method: "POST", body: JSON.stringify(body), headers, signal });
    for await (const message of messages(response.body)) {
      if (message.data === "[DONE]") return;
      yield JSON.parse(message.data);
    }
  }

  run(id, rest = "") {
    return `/v1/runs/${encodeURIComponent(id)}${rest}`;
  }

  /** A run's trace, as text. */
  async trace(id) {
    return (await this.good(this.run(id, "/trace"))).text();
  }

  /** Hand each event to `take`, each status to `status`, until the run is over or `signal` says stop. A lost connection
   *  is taken up where it broke; `lost(true | false)` says so. */
  async follow(id, { signal, take, status, lost }) {
    let last = -1;
    let over = false;
    for (let attempt = 0; !signal.aborted && !over;) {
      try {
        const response = await this.good(this.run(id, "/events"), {
          signal, headers: { Accept: "text/event-stream", ...(last >= 0 ? { "Last-Event-ID": String(last) } : {}) },
        });
        if (response.status === 204) return;
        lost(false);
        for await (const message of messages(response.body)) {
          attempt = 0;
          const data = JSON.parse(message.data);
          if (message.event === "status") {
            status(data);
            over = OVER.has(data.status);
          } else if (Number(message.id) > last) {
            last = Number(message.id);
            over = false;
            take(data);
          }
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
      }
      if (over || signal.aborted) return;
      lost(true);
      await new Promise((done) => setTimeout(done, WAIT[Math.min(attempt, WAIT.length - 1)]));
      attempt += 1;
    }
  }
}

/** The messages of a stream of server-sent events. */
async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let message = { data: [] };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (message.data.length) yield { id: message.id, event: message.event, data: message.data.join("\n") };
          message = { data: [] };
        } else if (!line.startsWith(":")) {
          const at = line.indexOf(":");
          const [field, text] = at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1).replace(/^ /, "")];
          if (field === "data") message.data.push(text);
          else if (field === "id" || field === "event") message[field] = text;
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
