// The page: fetches what the parts show at every beat of the service, and draws them.

import { drawAdvice, findingsOf } from "./advice.js";
import { follow, get, key, list, post } from "./api.js";
import { Drawer } from "./drawer.js";
import { byId, say } from "./element.js";
import { PoolTable } from "./pools.js";
import { drawHeadline, drawServers } from "./servers.js";

const EVERY_MS = 5000;
// No stream for so long after one broke; until then the page asks at its own pace.
const AGAIN_MS = 10_000;
// Charts move slowly; the drawer is fetched anew at every so many beats.
const DRAWER_BEATS = 3;
const MOST_POOLS = 2000;
const THEME = "poolkeeper-theme";

const drawer = new Drawer({ act, confirm });
const table = new PoolTable((pool) => drawer.open(pool));
let beats = 0;
let refreshing = null;
let wanted = false;
// Whoever would not give a key is not asked again by every beat.
let declined = false;

// One refresh at a time; a beat during one asks for exactly one more.
function refresh() {
  if (refreshing) {
    wanted = true;
    return refreshing;
  }
  refreshing = fetchAndDraw().finally(() => {
    refreshing = null;
    if (wanted) {
      wanted = false;
      refresh();
    }
  });
  return refreshing;
}

async function fetchAndDraw() {
  try {
    const [stats, servers, pools, advice, readiness] = await Promise.all([
      get("v1/stats?limit=1"),
      list("v1/servers?limit=100", 100),
      list("v1/pools?sort=-waiting&limit=500", MOST_POOLS),
      list("v1/recommendations?status=open&limit=200", 200),
      get("readyz").catch(() => null),
    ]);
    drawHeadline(byId("headline"), stats);
    drawServers(byId("servers"), servers.items, (pool) => drawer.open(pool));
    table.show(pools.items);
    const findings = findingsOf(servers.items, pools.items, readiness);
    drawAdvice(byId("advice"), { recommendations: advice.items, findings }, {
      open: (pool) => drawer.open(pool),
      apply: (each) => act(() => post(`v1/recommendations/${each.id}/apply`)),
      dismiss: (each) => act(() => post(`v1/recommendations/${each.id}/dismiss`)),
    });
    tell(null);
    say(byId("liveness"), `as of ${new Date().toLocaleTimeString()}`);
    if (drawer.pool !== null && ++beats % DRAWER_BEATS === 0) await drawer.refresh();
  } catch (error) {
    fail(error);
  }
}

function fail(error) {
  if (error.status === 401 && !declined) askForKey(key.get() ? "The service does not take this key." : null);
  else if (error.status !== undefined) tell(error.message);
  else throw error;
}

function tell(text) {
  const trouble = byId("trouble");
  trouble.hidden = text === null;
  if (text !== null) say(trouble, text);
}

// Does what a button says, and shows at once what became of it.
async function act(action) {
  try {
    await action();
    await refresh();
  } catch (error) {
    fail(error);
  }
}

function confirm(question, text) {
  const dialog = byId("confirm-dialog");
  say(byId("confirm-heading"), question);
  say(byId("confirm-text"), text);
  return new Promise((resolve) => {
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });
}

function askForKey(reason) {
  const dialog = byId("key-dialog");
  if (dialog.open) return;
  say(byId("key-reason"), reason ?? "This service asks for a key. It stays in this tab.");
  dialog.returnValue = "cancel";
  byId("key").value = "";
  dialog.showModal();
}

byId("key-dialog").addEventListener("close", () => {
  if (byId("key-dialog").returnValue !== "use") {
    declined = true;
    tell("Without a key there is nothing to show.");
    return;
  }
  declined = false;
  key.set(byId("key").value.trim());
  byId("key").value = "";
  refresh();
});
byId("give-key").addEventListener("click", () => askForKey(null));
byId("help").addEventListener("click", () => byId("help-dialog").showModal());
byId("theme").addEventListener("click", turnTheme);

function turnTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  showTheme(now === "dark" ? "light" : "dark");
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
    t: turnTheme,
    "?": () => byId("help-dialog").showModal(),
  };
  if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
});

// The service's own beat while its stream lasts; the clock's when there is none.
async function live() {
  for (;;) {
    const heard = new AbortController();
    await follow("v1/stats/stream", refresh, heard.signal).catch(() => null);
    const until = Date.now() + AGAIN_MS;
    while (Date.now() < until) {
      await refresh();
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    }
  }
}

if (localStorage.getItem(THEME)) showTheme(localStorage.getItem(THEME));
await refresh();
live();
