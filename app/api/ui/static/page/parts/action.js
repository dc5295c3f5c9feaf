// Changes: a dialog says whom one touches and what it will do, from the service's own dry run, and carries it out.
//
// An action is {label, title, request(values)}, and optionally text, affects (whom it touches), isDangerous,
// fields, retype (a name to type before it), outcome(document), done(document) and recover(error), which does
// something else instead and says what.

import { send } from "../core/api.js";
import { html, useEffect, useRef, useState } from "../core/html.js";
import { changed, report } from "../core/live.js";
import { createStore } from "../core/store.js";
import { CopyAsCurl } from "./copy.js";
import { Fields, initialValues } from "./fields.js";
import { say } from "./notice.js";

const PLAN_DELAY_MS = 250;
const question = createStore({ action: null });

export const ask = (action) => question.set({ action });

// Carries out an action at once; its outcome or its refusal is shown. Returns whether it was done.
export async function perform(action, values = {}) {
  say(null);
  try {
    await carryOut(action, values);
    return true;
  } catch (error) {
    if (error.status === undefined || error.status === 401) report(error);
    else say(error.message, { isBad: true });
    return false;
  } finally {
    await changed();
  }
}

async function carryOut(action, values) {
  let document;
  try {
    ({ document } = await send(action.request(values)));
  } catch (error) {
    if (!action.recover) throw error;
    say(await action.recover(error));
    return;
  }
  say(action.outcome?.(document) ?? `${action.title}: done.`);
  await action.done?.(document, values);
}

export function ActionButton({ action, isPrimary, kind }) {
  const run = () => (action.isImmediate ? perform(action) : ask(action));
  const css = kind ?? (isPrimary ? "primary" : action.isDangerous ? "danger" : undefined);
  return html`<button type="button" class=${css} onClick=${run}>${action.label}</button>`;
}

export function ActionDialog() {
  const { action } = question.use();
  return action && html`<${Question} action=${action} key=${action.title} />`;
}

function Question({ action }) {
  const dialog = useRef(null);
  const [values, setValues] = useState(() => initialValues(action.fields));
  const [typed, setTyped] = useState("");
  const [failure, setFailure] = useState(null);
  const [isRunning, setRunning] = useState(false);
  const plan = usePlan(action, values, isRunning);
  useEffect(() => {
    const opener = document.activeElement;
    dialog.current.showModal();
    return () => opener?.isConnected && opener.focus();
  }, []);
  const close = () => question.set({ action: null });
  const submit = async (event) => {
    event.preventDefault();
    setRunning(true);
    setFailure(null);
    try {
      await carryOut(action, values);
      close();
    } catch (error) {
      if (error.status === undefined) throw error;
      setFailure(error.message);
    } finally {
      setRunning(false);
      changed();
    }
  };
  const isReady = !isRunning && !plan.problem && (!action.retype || typed === action.retype);
  return html`
    <dialog id="action" ref=${dialog} aria-labelledby="action-heading" onClose=${close}>
      <form onSubmit=${submit}>
        <h2 id="action-heading">${action.title}</h2>
        ${action.text && html`<p>${action.text}</p>`}
        ${action.affects && html`<p class="affects">This affects ${action.affects}.</p>`}
        <${Fields} fields=${action.fields ?? []} values=${values} onChange=${(changes) => setValues({ ...values, ...changes })} />
        ${action.retype && html`
          <label class="field">Type <b>${action.retype}</b> to confirm
            <input id="retype" value=${typed} autocomplete="off" spellcheck=${false} onInput=${(event) => setTyped(event.target.value)} />
          </label>`}
        <${Plan} ...${plan} />
        ${failure && failure !== plan.problem?.message && html`<p class="problem" role="alert">${failure}</p>`}
        <div class="buttons end">
          <${CopyAsCurl} request=${action.request(values)} />
          <span class="grow"></span>
          <button type="button" onClick=${close}>Cancel</button>
          <button class=${action.isDangerous ? "danger solid" : "primary"} disabled=${!isReady}>${action.label}</button>
        </div>
      </form>
    </dialog>`;
}

// What the service says the action would do, asked again when the values change, but not while it is done.
function usePlan(action, values, isRunning) {
  const [state, setState] = useState({ plan: null, problem: null });
  useEffect(() => {
    if (isRunning) return undefined;
    let isCurrent = true;
    const show = (next) => isCurrent && setState(next);
    const timer = setTimeout(() => {
      const request = action.request(values);
      send({ ...request, query: { ...request.query, dry_run: true } }).then(
        ({ document }) => show({ plan: document, problem: null }),
        (problem) => show({ plan: null, problem }),
      );
    }, PLAN_DELAY_MS);
    return () => {
      isCurrent = false;
      clearTimeout(timer);
    };
  }, [JSON.stringify(values), isRunning]);
  return state;
}

function Plan({ plan, problem }) {
  if (problem) return html`<p class="problem" role="status">${problem.message}</p>`;
  const lines = plan ? linesOf(plan) : ["…"];
  return html`
    <div class="plan" role="status">
      <h3>What it will do</h3>
      <ul>${lines.map((line) => html`<li key=${line}>${line}</li>`)}</ul>
    </div>`;
}

const EFFECTS = [
  ["connections_opened", "Connections opened"],
  ["connections_closed", "Connections closed"],
  ["leases_cut", "Leases cut, at most"],
];

function linesOf({ plan, effects, warnings }) {
  const steps = plan.map(({ action, target, before, after }) => `${sentence(action)} ${target}${changes(before ?? {}, after ?? {})}`);
  const numbers = EFFECTS.filter(([name]) => effects[name]).map(([name, label]) => `${label}: ${effects[name]}`);
  const all = [...steps, ...numbers, ...warnings];
  return all.length ? all : ["Nothing: it is already so."];
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1).replaceAll("_", " ");

function changes(before, after) {
  const changed = Object.entries(after).filter(([name, value]) => JSON.stringify(before[name]) !== JSON.stringify(value));
  const text = changed.map(([name, value]) => [name, before[name] !== undefined && `${shown(before[name])} →`, shown(value)].filter(Boolean).join(" "));
  return text.length ? `: ${text.join(", ")}` : "";
}

function shown(value) {
  if (value === null) return "none";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
