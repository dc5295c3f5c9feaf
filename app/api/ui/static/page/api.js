// Client of the public API: requests with the key, problems as errors, and the live stream.

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

// The last response by path, reused when the service returns 304. Not for tenants: their ETag covers
// desired state only, while their current numbers change without a new ETag.
const cache = new Map();

function headers() {
  return key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
}

async function request(method, path, { body, signal } = {}) {
  const sentHeaders = headers();
  const isCached = method === "GET" && !path.startsWith("v1/tenants/");
  const cached = isCached ? cache.get(path) : undefined;
  if (cached) sentHeaders["If-None-Match"] = cached.etag;
  if (body !== undefined) sentHeaders["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: sentHeaders,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      signal: signal ?? AbortSignal.timeout(30_000),
    });
  } catch (error) {
    throw new Problem(0, "The service does not respond.", error.name);
  }
  if (response.status === 304) return cached.document;
  const document = await response.json().catch(() => ({}));
  if (!response.ok) {
    const detail = document.detail ?? `The service returned HTTP ${response.status}.`;
    throw new Problem(response.status, detail, document.code, document);
  }
  const etag = response.headers.get("ETag");
  if (isCached && etag) cache.set(path, { etag, document });
  return document;
}

export const get = (path, options) => request("GET", path, options);
export const put = (path, body) => request("PUT", path, { body });
export const post = (path) => request("POST", path);
export const remove = (path) => request("DELETE", path);

// All pages of a list, up to a number of items; *path* has a query already.
export async function list(path, limit) {
  const items = [];
  let cursor = null;
  do {
    const page = await get(cursor ? `${path}&cursor=${encodeURIComponent(cursor)}` : path);
    items.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor && items.length < limit);
  return { items, more: cursor !== null };
}

// Calls onEvent for each event of the stream until the signal aborts; EventSource could not send the
// key. Throws when the stream ends or is not available.
export async function follow(path, onEvent, signal) {
  const response = await fetch(path, {
    headers: { ...headers(), Accept: "text/event-stream" },
    cache: "no-store",
    signal,
  });
  if (!response.ok) throw new Problem(response.status, "The stream is not available.");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Problem(0, "The stream ended.");
    const events = (rest + value.replaceAll("\r\n", "\n")).split("\n\n");
    rest = events.pop();
    if (events.some((event) => event.split("\n").some((line) => line.startsWith("data:")))) {
      onEvent();
    }
  }
}
