// The PgBouncer nodes through which applications connect.

import { counted, number } from "../core/format.js";
import { html } from "../core/html.js";
import { MAX_NODES, isSilent, live, trailOfNode } from "../core/live.js";
import { go, href } from "../core/router.js";
import { ActionButton } from "../parts/action.js";
import { Spark } from "../parts/spark.js";
import { Table } from "../parts/table.js";
import { Empty, View } from "../parts/view.js";
import { NodeDrawer, NodeState } from "./node.js";
import { creation } from "./node-actions.js";

const COLUMNS = [
  { title: "Node", cell: (node) => node.name },
  { title: "State", cell: (node) => html`<${NodeState} node=${node} />` },
  { title: "Waiting", cell: (node) => number(ofNow(node).waiting), number: true, class: "waiting" },
  { title: "Clients", cell: (node) => number(ofNow(node).clients), number: true },
  { title: "Waiting lately", cell: (node) => html`<${Trail} node=${node.name} />`, class: "wide" },
  { title: "Connections", cell: (node) => number(isSilent(node) ? null : sumOf(node, "connections")), number: true, class: "wide" },
  { title: "Allotment", cell: (node) => number(sumOf(node, "allotment")), number: true, class: "wide" },
  { title: "Tenants", cell: (node) => number(node.tenants), number: true, class: "wide" },
  { title: "Address", cell: (node) => node.address ?? "–", class: "wide" },
  { title: "Pooler", cell: (node) => node.engine ?? "–", class: "wide" },
];

// What a silent node reported last is in its details.
const ofNow = (node) => (isSilent(node) ? {} : node);
const sumOf = (node, field) => node.servers.reduce((sum, server) => sum + (server[field] ?? 0), 0);

function Trail({ node }) {
  return html`<${Spark} values=${live.use().trails.get(trailOfNode(node))} label="Clients that waited" />`;
}

const classOf = (node) => (ofNow(node).waiting ? "is-waiting" : undefined);

export function Nodes({ subject, query }) {
  const { nodes, stats, at } = live.use();
  const mayNotSee = at && stats.nodes === null;
  return html`
    <${View} title="Nodes" lead="PgBouncer, through which applications connect with any driver. They share each server's budget with the pools of this service."
      request=${{ path: "v1/nodes" }} tools=${!mayNotSee && html`<${ActionButton} action=${creation} isPrimary=${at && !nodes.length} />`}>
      ${mayNotSee && html`<${Empty} title="This key is bound to tenants."><p>The details of each tenant show what it has on nodes.</p></${Empty}>`}
      ${at && !mayNotSee && nodes.length === 0 && html`<${FirstNode} />`}
      ${nodes.length > 0 && html`
        <${Table} label="Nodes" columns=${COLUMNS} rows=${nodes} classOf=${classOf} keyOf=${({ name }) => name}
          hrefOf=${({ name }) => href("nodes", name)} />
        <p class="muted">${counted(nodes.length, "node")}${nodes.length >= MAX_NODES && "; there may be more"}. Each reports every second; the past is shown from when this tab was opened.</p>`}
    </${View}>
    ${subject && html`<${NodeDrawer} key=${subject} name=${subject} query=${query} onClose=${() => go("nodes")} />`}`;
}

function FirstNode() {
  return html`
    <${Empty} title="There are no nodes yet.">
      <p>With a node, applications connect as they would to Postgres: psql, psycopg, asyncpg, JDBC, node-pg.</p>
      <ol>
        <li>Declare one: <b>New node</b>.</li>
        <li>Create a key for its agent: <code>poolkeeper keys create edge-agent --scope node --node edge</code></li>
        <li>Start the agent beside PgBouncer: <code>poolkeeper node --server https://… --key-file edge.key</code></li>
        <li>Create credentials in a tenant's details.</li>
      </ol>
    </${Empty}>`;
}
