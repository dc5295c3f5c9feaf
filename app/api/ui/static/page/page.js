// The page: fetches what the parts show at every beat of the service, and draws them.

import { Advice, findingsOf, lineOf, sizes } from "./advice.js";
import { follow, get, key, list, post } from "./api.js";
import { Drawer } from "./drawer.js";
import { byId, say } from "./element.js";
import { PoolTable } from "./pools.js";
import { drawHeadline, drawServers } from "./servers.js";

const EVERY_MS = 5000;
// No stream for so long after one broke; until then the page asks at its own pace.
const AGAIN_MS = 10_000;
// Advice is superseded at most once an interval; more often than that something else is wrong.
const TRIES = 3;
// Charts move slowly; the drawer is fetched anew at every so many beats.
const DRAWER_BEATS = 3;
const MOST_POOLS = 2000;
const THEME = "poolkeeper-theme";

const drawer = new Drawer({ act, confirm });
const table = new PoolTable((pool) => drawer.open(pool));
const advice = new Advice(byId("advice"), {
  open: (pool) => drawer.open(pool),
  settle: (each, what) => act(() => settle(each, what)),
});
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
    const [stats, servers, pools, advised, readiness] = await Promise.all([
      get("v1/stats?limit=1"),
      list("v1/servers?limit=100", 100),
      list("v1/pools?sort=-waiting&limit=500", MOST_POOLS),
      list("v1/recommendations?status=open&limit=200", 200),
      get("readyz").catch((error) => error.document),
    ]);
    drawHeadline(byId("headline"), stats);
    drawServers(byId("servers"), servers.items, (pool) => drawer.open(pool));
    table.show(pools.items);
    advice.show(advised.items, findingsOf(servers.items, pools.items, readiness));
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
  report(null);
  try {
    await action();
  } catch (error) {
    if (error.status === undefined || error.status === 401) fail(error);
    else report(error.message);
  }
  await refresh();
}

// What became of the last thing somebody did; it stays until the next, whatever beats bring.
function report(text) {
  byId("outcome").hidden = text === null;
  say(byId("outcome-text"), text ?? "");
}

// Applies or dismisses a recommendation. One that was superseded after it was drawn is its
// successor by now, which says the same with another number: that is done, and said.
async function settle(drawn, what) {
  let each = drawn;
  for (let left = TRIES; ; left -= 1) {
    try {
      await post(`v1/recommendations/${each.id}/${what}`);
      break;
    } catch (error) {
      const successor = error.code === "recommendation-closed" && left > 1 ? await successorOf(each) : undefined;
      if (!successor) throw error;
      each = successor;
    }
  }
  if (each.new_size !== drawn.new_size) {
    const done = what === "apply" ? "applied" : "dismissed";
    report(`The advice on ${each.pool} had changed a moment before: ${sizes(each)} was ${done}.`);
  }
}

async function successorOf(each) {
  const { items } = await get(`v1/recommendations?status=open&pool=${encodeURIComponent(each.pool)}`);
  return items.find((other) => other.id !== each.id && lineOf(other) === lineOf(each));
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
  const given = byId("key").value.trim();
  byId("key").value = "";
  // Nothing else fits into a header.
  if (!/^[\x21-\x7e]*$/.test(given)) askForKey("The service does not take this key.");
  else {
    key.set(given);
    refresh();
  }
});
byId("outcome-close").addEventListener("click", () => report(null));
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
