// DOM elements from text: text is always text, never markup.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function byId(id) {
  return document.getElementById(id);
}

// Sets text only if it changed, so that screen readers and selections are not disturbed.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Replaces the children only if they changed, and keeps the focus.
export function setChildren(place, elements) {
  const current = [...place.children];
  if (elements.length === current.length && elements.every((element, at) => element === current[at])) return;
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  place.replaceChildren(...elements);
  focused?.focus({ preventScroll: true });
}

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} s`;
  return value >= 100 ? `${Math.round(value)} ms` : `${value.toFixed(1)} ms`;
}

// The pause of a pool in words.
export function paused({ pause }) {
  return `paused ${ago(pause.since)} by ${pause.by}`;
}

export function ago(time) {
  const seconds = Math.max(0, Math.round((Date.now() - new Date(time)) / 1000));
  for (const [unit, letter] of [[86_400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= unit) return `${Math.floor(seconds / unit)} ${letter} ago`;
  }
  return `${seconds} s ago`;
}
