// The page: fetches the data of all parts after each poll of the service, and draws them.

import { follow, get, key, list, post } from "./api.js";
import { Drawer } from "./drawer.js";
import { byId, setText } from "./element.js";
import { PoolTable } from "./pools.js";
import { Recommendations, findingsOf, lineOf, sizes, unreachable } from "./recommendations.js";
import { drawHeadline, drawServers } from "./servers.js";

const POLL_INTERVAL_MS = 5000;
// After the stream breaks, poll for this long before reconnecting.
const RECONNECT_AFTER_MS = 10_000;
// A recommendation is superseded at most once per interval; beyond that something else is wrong.
const MAX_ATTEMPTS = 3;
// Charts change slowly: refresh the drawer with every third update.
const DRAWER_INTERVAL = 3;
const MAX_POOLS = 2000;
const THEME = "poolkeeper-theme";

const drawer = new Drawer({ act, confirm });
const table = new PoolTable((pool) => drawer.open(pool));
const recommendations = new Recommendations(byId("actions"), {
  open: (pool) => drawer.open(pool),
  decide: (each, decision) => act(() => decide(each, decision)),
});
let updates = 0;
let refreshing = null;
let isRefreshDue = false;
// Do not ask again at every update after the key dialog was cancelled.
let declined = false;

// One refresh at a time; further calls during it cause exactly one more.
function refresh() {
  if (refreshing) {
    isRefreshDue = true;
    return refreshing;
  }
  refreshing = fetchAndDraw().finally(() => {
    refreshing = null;
    if (isRefreshDue) {
      isRefreshDue = false;
      refresh();
    }
  });
  return refreshing;
}

async function fetchAndDraw() {
  try {
    const [stats, servers, pools, open, readiness] = await Promise.all([
      get("v1/stats?limit=1"),
      list("v1/servers?limit=100", 100),
      list("v1/pools?sort=-waiting&limit=500", MAX_POOLS),
      list("v1/recommendations?status=open&limit=200", 200),
      get("readyz").catch((error) => error.document),
    ]);
    drawHeadline(byId("headline"), stats);
    drawServers(byId("servers"), servers.items, (pool) => drawer.open(pool));
    table.show(pools.items);
    recommendations.show(open.items, findingsOf(servers.items, pools.items, readiness), unreachable(servers.items, pools.items));
    showError(null);
    setText(byId("updated"), `as of ${new Date().toLocaleTimeString()}`);
    if (drawer.pool !== null && ++updates % DRAWER_INTERVAL === 0) await drawer.refresh();
  } catch (error) {
    fail(error);
  }
}

function fail(error) {
  if (error.status === 401 && !declined) askForKey(key.get() ? "The service rejected this key." : null);
  else if (error.status !== undefined) showError(error.message);
  else throw error;
}

function showError(text) {
  const error = byId("error");
  error.hidden = text === null;
  if (text !== null) setText(error, text);
}

// Runs the action of a button and shows its outcome at once.
async function act(action) {
  showOutcome(null);
  try {
    await action();
  } catch (error) {
    if (error.status === undefined || error.status === 401) fail(error);
    else showOutcome(error.message);
  }
  await refresh();
}

// Shows the outcome of the last action until the next one; updates do not remove it.
function showOutcome(text) {
  byId("outcome").hidden = text === null;
  setText(byId("outcome-text"), text ?? "");
}

// Applies or dismisses a recommendation. If it was superseded after it was drawn by one that differs
// in its size only, decides on that one instead and says so.
async function decide(drawn, decision) {
  let each = drawn;
  for (let left = MAX_ATTEMPTS; ; left -= 1) {
    try {
      await post(`v1/recommendations/${each.id}/${decision}`);
      break;
    } catch (error) {
      const successor = error.code === "recommendation-closed" && left > 1 ? await successorOf(each) : undefined;
      if (!successor) throw error;
      each = successor;
    }
  }
  if (each.new_size !== drawn.new_size) {
    const done = decision === "apply" ? "applied" : "dismissed";
    showOutcome(`The recommendation for ${each.pool} changed in the meantime: ${sizes(each)} was ${done}.`);
  }
}

async function successorOf(each) {
  const { items } = await get(`v1/recommendations?status=open&pool=${encodeURIComponent(each.pool)}`);
  return items.find((other) => other.id !== each.id && lineOf(other) === lineOf(each));
}

function confirm(question, text) {
  const dialog = byId("confirm-dialog");
  setText(byId("confirm-heading"), question);
  setText(byId("confirm-text"), text);
  return new Promise((resolve) => {
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });
}

function askForKey(reason) {
  const dialog = byId("key-dialog");
  if (dialog.open) return;
  setText(byId("key-reason"), reason ?? "This service requires an API key. The key stays in this tab.");
  dialog.returnValue = "cancel";
  byId("key").value = "";
  dialog.showModal();
}

byId("key-dialog").addEventListener("close", () => {
  if (byId("key-dialog").returnValue !== "use") {
    declined = true;
    showError("This service shows nothing without an API key.");
    return;
  }
  declined = false;
  const given = byId("key").value.trim();
  byId("key").value = "";
  // A header can carry these characters only.
  if (!/^[\x21-\x7e]*$/.test(given)) askForKey("The service rejected this key.");
  else {
    key.set(given);
    refresh();
  }
});
byId("outcome-close").addEventListener("click", () => showOutcome(null));
byId("api-key").addEventListener("click", () => askForKey(null));
byId("shortcuts").addEventListener("click", () => byId("shortcuts-dialog").showModal());
byId("theme").addEventListener("click", toggleTheme);

function toggleTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const current = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  showTheme(current === "dark" ? "light" : "dark");
  drawer.refresh();
}

function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem(THEME, theme);
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, dialog") !== null;
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = {
    "/": () => byId("search").focus(),
    j: () => table.step(1),
    k: () => table.step(-1),
    t: toggleTheme,
    "?": () => byId("shortcuts-dialog").showModal(),
  };
  if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
});

// Updates with each event of the stream; polls while the stream is broken.
async function run() {
  for (;;) {
    const abort = new AbortController();
    await follow("v1/stats/stream", refresh, abort.signal).catch(() => null);
    const until = Date.now() + RECONNECT_AFTER_MS;
    while (Date.now() < until) {
      await refresh();
      await new Promise((resolve) => setTimeout(resolve, POLL_INTERVAL_MS));
    }
  }
}

if (localStorage.getItem(THEME)) showTheme(localStorage.getItem(THEME));
await refresh();
run();
