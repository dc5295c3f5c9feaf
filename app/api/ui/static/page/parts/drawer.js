// Details beside the list they belong to. Tab goes round inside it, since it may cover the page.

import { html, useEffect, useRef } from "../core/html.js";

export function Drawer({ title, kind, tools, problem, onClose, children }) {
  const place = useRef(null);
  useEffect(() => {
    const opener = document.activeElement;
    place.current.querySelector("#drawer-close").focus();
    const close = (event) => {
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) onClose();
    };
    document.addEventListener("keydown", close);
    return () => {
      document.removeEventListener("keydown", close);
      // The row of the list may have been drawn anew in the meantime.
      if (opener?.isConnected) opener.focus();
    };
  }, [title]);
  return html`
    <div id="drawer" role="dialog" aria-labelledby="drawer-heading" ref=${place} onKeyDown=${keepFocus}>
      <div class="bar">
        <h2 id="drawer-heading"><small>${kind} </small><span>${title}</span></h2>
        <div class="buttons">${tools}<button id="drawer-close" type="button" title="Close (Esc)" onClick=${onClose}>Close</button></div>
      </div>
      ${problem && html`<p class="problem" role="alert">${problem.message}</p>`}
      ${children}
    </div>`;
}

function keepFocus(event) {
  if (event.key !== "Tab") return;
  const all = event.currentTarget.querySelectorAll("button:not([disabled]), input, select, textarea, a[href], summary");
  const stops = [...all].filter((each) => each.checkVisibility());
  const [from, to] = event.shiftKey ? [stops[0], stops.at(-1)] : [stops.at(-1), stops[0]];
  if (document.activeElement !== from) return;
  event.preventDefault();
  to.focus();
}
