// The address after `#`: which view, of what, with which filters: `#/tenants/acme?range=6h`.

import { createStore } from "./store.js";

export const route = createStore(parse(location.hash));
addEventListener("hashchange", () => route.set(parse(location.hash)));

export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [view, subject] = path.split("/").map(decoded);
  return { view: view || "overview", subject: subject || null, query: Object.fromEntries(new URLSearchParams(query)) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function href(view, subject = null, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value);
  const path = subject === null ? view : `${view}/${encodeURIComponent(subject).replaceAll("%40", "@")}`;
  return `#/${path}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

export function go(view, subject, query) {
  location.hash = href(view, subject, query);
  route.set(parse(location.hash));
}

// Changes filters without a new entry in the browser's history.
export function setQuery(changes) {
  const { view, subject, query } = route.get();
  const changed = { ...query, ...changes };
  history.replaceState(null, "", href(view, subject, changed));
  route.set({ query: changed });
}
