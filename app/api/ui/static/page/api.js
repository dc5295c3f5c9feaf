// The public API as the page sees it: requests with the key, problems as errors, live beats.

const KEY = "poolkeeper-key";

export class Problem extends Error {
  constructor(status, detail, code, document) {
    super(detail);
    this.status = status;
    this.code = code;
    this.document = document;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

// What was answered last by address: the service says 304 when nothing changed since.
// Not of a tenant: its tag is of what is recorded, and the moment's numbers beside that change
// without a new one.
const known = new Map();

function headers() {
  return key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
}

async function ask(method, path, { body, signal } = {}) {
  const sent = headers();
  const remembers = method === "GET" && !path.startsWith("v1/tenants/");
  const remembered = remembers ? known.get(path) : undefined;
  if (remembered) sent["If-None-Match"] = remembered.etag;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      signal: signal ?? AbortSignal.timeout(30_000),
    });
  } catch (error) {
    throw new Problem(0, "The service does not answer.", error.name);
  }
  if (answer.status === 304) return remembered.document;
  const document = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const detail = document.detail ?? `The service answered ${answer.status}.`;
    throw new Problem(answer.status, detail, document.code, document);
  }
  const etag = answer.headers.get("ETag");
  if (remembers && etag) known.set(path, { etag, document });
  return document;
}

export const get = (path, options) => ask("GET", path, options);
export const put = (path, body) => ask("PUT", path, { body });
export const post = (path) => ask("POST", path);
export const remove = (path) => ask("DELETE", path);

// All pages of a list, up to a number of items; its address has a query already.
export async function list(path, most) {
  const items = [];
  let cursor = null;
  do {
    const page = await get(cursor ? `${path}&cursor=${encodeURIComponent(cursor)}` : path);
    items.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor && items.length < most);
  return { items, more: cursor !== null };
}

// Calls onBeat at every beat of the service's stream, until the signal aborts; EventSource
// could not send the key. Throws when the stream ends or is not there.
export async function follow(path, onBeat, signal) {
  const answer = await fetch(path, {
    headers: { ...headers(), Accept: "text/event-stream" },
    cache: "no-store",
    signal,
  });
  if (!answer.ok) throw new Problem(answer.status, "There is no stream.");
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Problem(0, "The stream ended.");
    const events = (rest + value.replaceAll("\r\n", "\n")).split("\n\n");
    rest = events.pop();
    if (events.some((event) => event.split("\n").some((line) => line.startsWith("data:")))) {
      onBeat();
    }
  }
}
