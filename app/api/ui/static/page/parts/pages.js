// A list that the service pages, newest first: more of it on request, the first page anew with each refresh.

import { get } from "../core/api.js";
import { html, useEffect, useState } from "../core/html.js";
import { report } from "../core/live.js";
import { useResource } from "../core/resource.js";

export function usePages(path, query) {
  const { data, problem } = useResource(() => get(path, query), [path, query], { every: 2 });
  const [older, setOlder] = useState({ items: [], cursor: undefined });
  const chosen = JSON.stringify(query);
  useEffect(() => setOlder({ items: [], cursor: undefined }), [chosen]);
  const cursor = older.cursor === undefined ? data?.next_cursor : older.cursor;
  const more = () => get(path, { ...query, cursor }).then(
    (page) => setOlder({ items: [...(older.items.length ? older.items : data.items), ...page.items], cursor: page.next_cursor }), report);
  // What is new goes before the pages that were asked for.
  const known = new Set(older.items.map(({ id }) => id));
  const items = data && (older.items.length ? [...data.items.filter(({ id }) => !known.has(id)), ...older.items] : data.items);
  return { items, problem, more: cursor ? more : null };
}

export function More({ onMore }) {
  return onMore && html`<p><button type="button" onClick=${onMore}>Show older</button></p>`;
}
