// Keyboard shortcuts, and the dialog that lists them.

import { html, useEffect, useRef } from "../core/html.js";
import { go } from "../core/router.js";
import { createStore } from "../core/store.js";
import { step } from "./table.js";
import { toggleTheme } from "./theme.js";
import { Facts } from "./view.js";

const dialogs = createStore({ isShown: false });
export const showShortcuts = () => dialogs.set({ isShown: true });

// After g, the first letter of a view goes there.
const VIEWS = { o: "overview", t: "tenants", p: "pools", n: "nodes", s: "servers", a: "advice", f: "findings", u: "usage", e: "events", r: "refusals", k: "keys" };
const GO_MS = 1500;
let goUntil = 0;

const KEYS = {
  "/": () => document.getElementById("search")?.focus(),
  j: () => step(1),
  k: () => step(-1),
  t: toggleTheme,
  g: () => {
    goUntil = Date.now() + GO_MS;
  },
  "?": showShortcuts,
};

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, select, textarea, dialog") !== null;
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const view = Date.now() < goUntil ? VIEWS[event.key] : undefined;
  const run = view ? () => go(view) : KEYS[event.key];
  goUntil = 0;
  if (!run) return;
  event.preventDefault();
  run();
});

const LIST = [
  [["/"], "search"], [["j", "k"], "next and previous row"], [["Enter"], "open the row"], [["Esc"], "close the details"],
  [["g", "t"], "go to the tenants; o, p, n, s, a, f, u, e, r, k to the other views"], [["t"], "light or dark"],
];

export function Shortcuts() {
  return dialogs.use().isShown && html`<${Dialog} />`;
}

function Dialog() {
  const dialog = useRef(null);
  useEffect(() => dialog.current.showModal(), []);
  const close = () => dialogs.set({ isShown: false });
  return html`
    <dialog id="shortcuts-dialog" ref=${dialog} aria-labelledby="shortcuts-heading" onClose=${close}>
      <h2 id="shortcuts-heading">Keyboard shortcuts</h2>
      <${Facts} pairs=${LIST.map(([keys, text]) => [keys.map((key) => html`<kbd key=${key}>${key}</kbd> `), text])} />
      <div class="buttons end"><button class="primary" onClick=${close}>Close</button></div>
    </dialog>`;
}
