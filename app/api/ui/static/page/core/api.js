// Client of the public API: requests with the key, problems as errors, and the live stream.

const KEY = "poolkeeper-key";

export class Problem extends Error {
  constructor(status, detail, document = {}) {
    super(detail);
    this.status = status;
    this.code = document.code;
    this.document = document;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

// The last response by path, reused when the service returns 304. Not for single tenants and nodes: their ETag
// covers what was declared only, while their current numbers change without a new ETag.
const MAX_CACHED = 60;
const cache = new Map();

function authorization() {
  return key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
}

// A path with a query; empty values are left out.
export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

export async function send({ method = "GET", path, query, body, ifMatch, ifNoneMatch, signal }) {
  const url = address(path, query);
  const isCached = method === "GET" && !/^v1\/(tenants|nodes)\//.test(path);
  const cached = isCached ? cache.get(url) : undefined;
  const headers = authorization();
  if (cached) headers["If-None-Match"] = cached.etag;
  if (ifMatch) headers["If-Match"] = ifMatch;
  if (ifNoneMatch) headers["If-None-Match"] = ifNoneMatch;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(url, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      signal: signal ?? AbortSignal.timeout(30_000),
    });
  } catch (error) {
    throw new Problem(0, "The service does not respond.", { code: error.name });
  }
  if (response.status === 304) return cached;
  const document = await response.json().catch(() => ({}));
  if (!response.ok) {
    const reasons = (document.errors ?? []).map(({ pointer, detail }) => `${pointer.split("/").at(-1)}: ${detail}`);
    const detail = [document.detail ?? `The service returned HTTP ${response.status}.`, ...reasons].join(" ");
    throw new Problem(response.status, detail, document);
  }
  const etag = response.headers.get("ETag");
  if (isCached && etag) {
    cache.delete(url);
    cache.set(url, { etag, document });
    if (cache.size > MAX_CACHED) cache.delete(cache.keys().next().value);
  }
  return { etag, document };
}

export const get = async (path, query) => (await send({ path, query })).document;

// A thing that others may change meanwhile: with its ETag, for If-Match; null if there is none.
export const findTagged = (path) =>
  send({ path }).then(({ document, etag }) => ({ ...document, etag }), (error) => {
    if (error.status === 404) return null;
    throw error;
  });

// All pages of a list, up to a number of items.
export async function list(path, query, limit) {
  const items = [];
  let cursor = null;
  do {
    const page = await get(path, { ...query, cursor });
    items.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor && items.length < limit);
  return items;
}

// Calls onEvent for each event of the stream; EventSource could not send the key. Throws when the
// stream ends or is not available.
export async function follow(path, onEvent) {
  const response = await fetch(path, {
    headers: { ...authorization(), Accept: "text/event-stream" },
    cache: "no-store",
  });
  if (!response.ok) throw new Problem(response.status, "The stream is not available.");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Problem(0, "The stream ended.");
    const events = (rest + value.replaceAll("\r\n", "\n")).split("\n\n");
    rest = events.pop();
    if (events.some((event) => event.split("\n").some((line) => line.startsWith("data:")))) onEvent();
  }
}
