// The API key: asked for when the service requires one, kept in this tab only.

import { key } from "../core/api.js";
import { html, useEffect, useRef, useState } from "../core/html.js";
import { live, refresh } from "../core/live.js";
import { createStore } from "../core/store.js";

const REJECTED = "The service rejected this key.";
// *isDeclined*: the dialog was cancelled; it does not ask again by itself.
const dialogs = createStore({ isAsked: false, isDeclined: false });

export const askForKey = () => dialogs.set({ isAsked: true, isDeclined: false });

export function KeyDialog() {
  const { needsKey, isKeyRejected } = live.use();
  const { isAsked, isDeclined } = dialogs.use();
  return (isAsked || (needsKey && !isDeclined)) && html`<${Dialog} reason=${isKeyRejected ? REJECTED : null} isNeeded=${needsKey} />`;
}

function Dialog({ reason, isNeeded }) {
  const dialog = useRef(null);
  const [given, setGiven] = useState("");
  const [refusal, setRefusal] = useState(null);
  useEffect(() => dialog.current.showModal(), []);
  const cancel = () => {
    dialogs.set({ isAsked: false, isDeclined: true });
    if (isNeeded) live.set({ problem: "This service shows nothing without an API key." });
  };
  const use = async (event) => {
    event.preventDefault();
    const text = given.trim();
    setGiven("");
    // A header can carry these characters only.
    if (!/^[\x21-\x7e]*$/.test(text)) return setRefusal(REJECTED);
    key.set(text);
    await refresh();
    dialogs.set({ isAsked: false, isDeclined: false });
    return live.get().needsKey ? setRefusal(REJECTED) : undefined;
  };
  return html`
    <dialog id="key-dialog" ref=${dialog} aria-labelledby="key-heading" onCancel=${cancel}>
      <form onSubmit=${use}>
        <h2 id="key-heading">API key</h2>
        <p>${refusal ?? reason ?? (isNeeded ? "This service requires an API key. The key stays in this tab." : "The key stays in this tab.")}</p>
        <label class="field" for="key">Key</label>
        <input id="key" type="password" autocomplete="off" spellcheck=${false} value=${given} onInput=${(event) => setGiven(event.target.value)} />
        <div class="buttons end"><button type="button" onClick=${cancel}>Cancel</button><button class="primary">Use key</button></div>
      </form>
    </dialog>`;
}
