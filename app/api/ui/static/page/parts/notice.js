// The outcome of the last action: it stays until the next one, or until it is closed.

import { html } from "../core/html.js";
import { createStore } from "../core/store.js";

const notice = createStore({ text: null, isBad: false });

export function say(text, { isBad = false } = {}) {
  notice.set({ text, isBad });
}

export function Notice() {
  const { text, isBad } = notice.use();
  return html`
    <div id="outcome" class=${isBad ? "bad" : ""} role="status" hidden=${text === null}>
      <span>${text}</span>
      <button type="button" onClick=${() => say(null)}>Close</button>
    </div>`;
}
