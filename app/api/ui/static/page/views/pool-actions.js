// What can be done to a pool. The API reaches a shared pool through any of its tenants; each action says whom it touches.

import { counted } from "../core/format.js";
import { html } from "../core/html.js";
import { isShared } from "../core/live.js";
import { ActionButton } from "../parts/action.js";

const DEADLINE = {
  name: "deadline_seconds", label: "Seconds for leases to end", help: "After that they are cut.",
  type: "number", min: 0, max: 300, value: 5,
};

// *view*: the pool as the API shows it; null if it is not open and nothing was ever set.
export function actionsOf(pool, tenant, view) {
  const path = `v1/tenants/${encodeURIComponent(tenant)}/pool`;
  const scope = isShared(pool) ? "pool" : null;
  const affects = isShared(pool) && view ? `all ${counted(view.tenants, "tenant")} of this pool` : null;
  const post = (name, { query, ...action }) => ({
    affects,
    outcome: () => `${action.title}: done.`,
    ...action,
    request: (values) => ({ method: "POST", path: `${path}/${name}`, query: { scope, ...query?.(values) } }),
  });
  return {
    resize: resizing({ pool, path, scope, affects, view }),
    pause: post("pause", {
      label: "Pause", title: `Pause ${pool}`, isDangerous: true,
      text: "It hands out no connection until it is resumed. Callers wait, or are refused at once, as the service's settings say.",
    }),
    resume: post("resume", { label: "Resume", title: `Resume ${pool}`, text: "It hands out connections again." }),
    drain: post("drain", {
      label: "Drain", title: `Drain ${pool}`, isDangerous: true, fields: [DEADLINE],
      text: "It takes no new lease, lets the running ones end, and closes. Its next use opens a new one.",
      query: ({ deadline_seconds }) => ({ deadline_seconds }),
      outcome: ({ deadline_seconds }) => `Pool ${pool} is draining, for at most ${deadline_seconds} s.`,
    }),
    recycle: post("recycle", {
      label: "Recycle", title: `Recycle ${pool}`, text: "Replaces every connection, on nodes too, without interrupting a lease or a transaction.",
      outcome: ({ connections, nodes }) => `Pool ${pool}: ${counted(connections, "connection")} replaced.${late(nodes)}`,
    }),
    check: post("check", {
      label: "Check", title: `Check ${pool}`, isImmediate: true,
      outcome: ({ tested, failed }) => `Pool ${pool}: ${counted(tested, "idle connection")} tested, ${failed} failed and closed.`,
    }),
    evict: {
      label: "Evict", title: `Evict ${pool}`, affects, isDangerous: true,
      text: "Closes it now. Its size stays as it is set, and its next use opens it again.",
      fields: [DEADLINE, { name: "isForced", label: "Cut all leases at once", type: "checkbox", value: false }],
      request: ({ deadline_seconds, isForced }) => ({
        method: "DELETE", path, ifMatch: "*", query: isForced ? { scope, mode: "force" } : { scope, deadline_seconds },
      }),
      outcome: ({ closed, cut, nodes }) => `Pool ${pool} was evicted: ${counted(closed, "connection")} closed, ${counted(cut, "lease")} cut.${late(nodes)}`,
    },
  };
}

// The nodes that were not reached in time.
function late(nodes) {
  const names = nodes.filter((each) => !each.recycled).map((each) => each.node);
  return names.length ? ` Nodes that follow once they are reached: ${names.join(", ")}.` : "";
}

function resizing({ pool, path, scope, affects, view }) {
  const size = (name, label, help, min) => ({ name, label, help, type: "number", min, max: 10_000, value: view?.desired[name] });
  const isOpen = view?.open;
  return {
    label: isOpen ? "Resize" : "Open", title: `${isOpen ? "Resize" : "Open"} ${pool}`, affects,
    text: isOpen
      ? "A smaller size interrupts no lease: surplus connections close when they are returned."
      : "Opens the pool and waits until it is warm. Empty fields stay as they are.",
    fields: [
      size("max_size", "max_size", "Connections, at most.", 1),
      size("min_size", "min_size", "Connections that stay open when idle.", 0),
      size("warmup_size", "warmup_size", "Connections opened when the pool opens.", 0),
    ],
    request: (values) => ({ method: "PUT", path, query: { scope }, body: values, ifMatch: view?.etag }),
    outcome: ({ size: now, desired }) => `Pool ${pool}: ${counted(now, "connection")} open, at most ${desired.max_size}.`,
  };
}

export function PoolActions({ pool, tenant, view }) {
  const actions = actionsOf(pool, tenant, view);
  const isPaused = Boolean(view?.pause);
  const isOpen = Boolean(view?.open);
  const shown = [
    actions.resize,
    isPaused ? actions.resume : actions.pause,
    ...(isOpen ? [actions.check] : []),
    ...(isOpen || view?.nodes?.length ? [actions.recycle, actions.drain, actions.evict] : []),
  ];
  return html`
    <div id="pool-actions" class="buttons" role="group" aria-label="Pool">
      <h3>Pool</h3>${shown.map((action) => html`<${ActionButton} key=${action.label} action=${action} isPrimary=${action === actions.resume} />`)}
    </div>`;
}
