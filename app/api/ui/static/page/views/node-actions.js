// What can be done to a node.

import { counted } from "../core/format.js";
import { go } from "../core/router.js";
import { labelLines, labelsIn } from "./labels.js";

const path = (name) => `v1/nodes/${encodeURIComponent(name)}`;

const DECLARATION = [
  { name: "address", label: "Address", placeholder: "pools.example.com:6432", help: "Host and port at which applications reach it." },
  { name: "selector", label: "Tenants", type: "lines", placeholder: "plan: gold", help: "Labels that a tenant must have, one per line. Empty: all with a role of their own." },
  { name: "limits", label: "Connections, at most", type: "lines", placeholder: "local: 40", help: "Per server, one per line. Others: no limit but the server's budget." },
  { name: "labels", label: "Labels", type: "lines", placeholder: "zone: a", help: "For people, one per line, as key: value." },
];

const bodyOf = ({ address, selector, limits, labels }) => ({
  address: address || null,
  selector: labelsIn(selector),
  limits: Object.fromEntries(Object.entries(labelsIn(limits)).map(([server, most]) => [server, Number(most)])),
  labels: labelsIn(labels),
});

const fieldsOf = (values) => DECLARATION.map((field) => ({ ...field, value: values[field.name] ?? "" }));

export const creation = {
  label: "New node",
  title: "New node",
  text: "Declares a PgBouncer through which applications connect. Start its agent afterwards: poolkeeper node.",
  fields: [
    { name: "name", label: "Name", value: "", placeholder: "edge", help: "Lower-case letters, digits and hyphens.", required: true, maxlength: 48 },
    ...fieldsOf({}),
  ],
  request: ({ name, ...values }) => ({ method: "PUT", path: path(name || "edge"), body: bodyOf(values), ifNoneMatch: "*" }),
  outcome: ({ name }) => `Node ${name} was created.`,
  done: ({ name }) => go("nodes", name),
};

// *etag*: of the declaration that was shown.
export function actionsOf(node, etag) {
  const { name } = node;
  const post = (operation, action) => ({ ...action, title: `${action.label} ${name}`, request: () => ({ method: "POST", path: `${path(name)}/${operation}` }) });
  return {
    edit: {
      label: "Edit", title: `Edit ${name}`,
      fields: fieldsOf({ ...node, selector: labelLines(node.selector), limits: labelLines(node.limits), labels: labelLines(node.labels) }),
      request: (values) => ({ method: "PUT", path: path(name), body: bodyOf(values), ifMatch: etag }),
      outcome: () => `Node ${name} was changed.`,
    },
    pause: post("pause", {
      label: "Pause", isDangerous: true, affects: `all ${counted(node.tenants, "tenant")} of this node`,
      text: "Its clients can connect, and wait for a connection until it is resumed.",
    }),
    resume: post("resume", { label: "Resume", text: "Ends a pause and a drain." }),
    drain: post("drain", {
      label: "Drain", isDangerous: true,
      text: "It accepts no new clients. Once the present ones have left, it gives its connections back.",
    }),
    remove: {
      label: "Delete", title: `Delete ${name}`, isDangerous: true, retype: name,
      text: "It must be drained, or gone. Its agent's key stays; revoke it.",
      request: () => ({ method: "DELETE", path: path(name), ifMatch: etag }),
      outcome: () => `Node ${name} was deleted.`,
      done: () => go("nodes"),
    },
  };
}
