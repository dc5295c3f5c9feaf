// What every view shows of the service as it is now: fetched again after each of its polls.

import { Problem, follow, get, key, list } from "./api.js";
import { createStore } from "./store.js";

const POLL_INTERVAL_MS = 5000;
// After the stream breaks, poll for this long before reconnecting.
const RECONNECT_AFTER_MS = 10_000;
export const MAX_POOLS = 2000;
export const MAX_NODES = 500;
export const MAX_RECOMMENDATIONS = 200;
// Measurements of each pool and node that this tab keeps for its sparkline.
const TRAIL = 60;

export const live = createStore({
  // How often it was fetched; a view fetches its own data at each of them.
  tick: 0,
  // How many changes were made here; after each of them a view fetches its data, too.
  changes: 0,
  at: null,
  // Its version, and addresses that the operator set.
  about: null,
  problem: null,
  stats: null,
  rate: null,
  servers: [],
  pools: [],
  nodes: [],
  recommendations: [],
  findings: [],
  trails: new Map(),
  needsKey: false,
  isKeyRejected: false,
});

let refreshing = null;
let isRefreshDue = false;
// Another instance may have another version and other addresses; the stream ends with the instance.
let isAboutDue = true;

// One refresh at a time; further calls during it cause exactly one more.
export function refresh() {
  if (refreshing) {
    isRefreshDue = true;
    return refreshing;
  }
  refreshing = load().finally(() => {
    refreshing = null;
    if (isRefreshDue) {
      isRefreshDue = false;
      refresh();
    }
  });
  return refreshing;
}

async function load() {
  const asksAbout = isAboutDue;
  isAboutDue = false;
  try {
    const before = live.get();
    const service = get("v1/stats", { limit: 1 });
    const [about, stats, nodes, servers, pools, recommendations, { items: findings }] = await Promise.all([
      asksAbout ? get("v1/about") : before.about,
      service,
      service.then(nodesOf),
      list("v1/servers", { limit: 100 }, 1000),
      list("v1/pools", { sort: "-waiting", limit: 500 }, MAX_POOLS),
      list("v1/recommendations", { status: "open", limit: 200 }, MAX_RECOMMENDATIONS),
      get("v1/findings"),
    ]);
    live.set({
      about, stats, nodes, servers, pools, recommendations, findings,
      rate: rateOf(before.stats, stats) ?? before.rate,
      trails: trailsOf(before.trails, pools, nodes),
      tick: before.tick + 1,
      at: new Date(),
      problem: null,
      needsKey: false,
    });
  } catch (error) {
    isAboutDue ||= asksAbout;
    report(error);
  }
}

// Shows a problem that concerns the whole page; a missing key is asked for.
export function report(error) {
  if (!(error instanceof Problem)) throw error;
  if (error.status === 401) live.set({ needsKey: true, isKeyRejected: key.get() !== "" });
  else live.set({ problem: error.message });
}

// Where there are none, and with a key that may not see them, nothing is asked.
function nodesOf({ nodes }) {
  const isAny = nodes && Object.keys(nodes.by_state).length > 0;
  return isAny ? list("v1/nodes", { limit: 100 }, MAX_NODES) : [];
}

// Leases a second between two readings; null if the counters did not move on or began anew.
function rateOf(before, now) {
  if (!before) return null;
  const seconds = (new Date(now.as_of) - new Date(before.as_of)) / 1000;
  const leases = now.totals.connections_acquired - before.totals.connections_acquired;
  return seconds > 0 && leases >= 0 ? leases / seconds : null;
}

function trailsOf(before, pools, nodes) {
  const now = [
    ...pools.map(({ pool_id, active, waiting }) => [pool_id, active + waiting]),
    ...nodes.filter((node) => !isSilent(node)).map(({ name, waiting }) => [trailOfNode(name), waiting]),
  ];
  return new Map(now.map(([name, value]) => [name, [...(before.get(name) ?? []), value].slice(-TRAIL)]));
}

// Whether what a node reported last is too old to be shown as of now.
export const isSilent = ({ state }) => state === "stale" || state === "gone";

// No pool is named so.
export const trailOfNode = (name) => `node ${name}`;

// After a change made here.
export function changed() {
  live.set({ changes: live.get().changes + 1 });
  return refresh();
}

export const isShared = (pool) => pool.startsWith("shared@");
export const serverOf = (pool) => pool.slice("shared@".length);

// Refreshes with each event of the stream; polls while the stream is broken; rests in a hidden tab.
export async function run() {
  const refreshVisible = () => (document.hidden ? null : refresh());
  document.addEventListener("visibilitychange", refreshVisible);
  await refresh();
  for (;;) {
    await follow("v1/stats/stream", refreshVisible).catch(() => null);
    isAboutDue = true;
    const until = Date.now() + RECONNECT_AFTER_MS;
    while (Date.now() < until) {
      await refreshVisible();
      await new Promise((resolve) => setTimeout(resolve, POLL_INTERVAL_MS));
    }
  }
}
