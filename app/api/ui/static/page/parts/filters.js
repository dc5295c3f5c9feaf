// Text filters of a view; they are part of its address.

import { html, useEffect, useState } from "../core/html.js";
import { setQuery } from "../core/router.js";

const TYPING_MS = 300;

// *filters*: {name, label, placeholder}; the first one is reached with /.
export function TextFilters({ filters, query, children }) {
  return html`
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      ${filters.map((filter, at) => html`
        <${TextFilter} key=${filter.name} ...${filter} id=${at ? undefined : "search"} value=${query[filter.name] ?? ""} />`)}
      ${children}
    </form>`;
}

export function TextFilter({ id, name, label, placeholder, value }) {
  const [typed, setTyped] = useState(value);
  useEffect(() => setTyped(value), [value]);
  useEffect(() => {
    const text = typed.trim();
    const timer = setTimeout(() => text !== value && setQuery({ [name]: text }), TYPING_MS);
    return () => clearTimeout(timer);
  }, [typed]);
  return html`
    <label>${label} <input id=${id} type="search" value=${typed} placeholder=${placeholder} autocomplete="off" spellcheck=${false}
      onInput=${(event) => setTyped(event.target.value)} /></label>`;
}

// *options*: values, or pairs of a value and its text; *none*: what is shown without a filter.
export function SelectFilter({ name, label, value = "", options, none = "all" }) {
  return html`
    <label>${label}
      <select value=${value} onChange=${(event) => setQuery({ [name]: event.target.value })}>
        <option value="">${none}</option>${options.map((option) => [option].flat()).map(([given, text]) => html`<option key=${given} value=${given}>${text ?? given}</option>`)}
      </select>
    </label>`;
}
