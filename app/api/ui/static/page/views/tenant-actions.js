// What can be done to a tenant.

import { counted } from "../core/format.js";
import { go } from "../core/router.js";
import { labelLines, labelsIn } from "./labels.js";

const path = ({ id }) => `v1/tenants/${encodeURIComponent(id)}`;

export function provisioning(tenant) {
  return {
    label: "Provision",
    title: `Provision ${tenant.id}`,
    text: "Creates what its strategy needs in Postgres, and tests its login. Repeating it repairs what is missing.",
    fields: [{ name: "adopt", label: "Take over objects of that name that exist already", type: "checkbox", value: false }],
    request: ({ adopt }) => ({ method: "POST", path: `${path(tenant)}/provision`, query: { adopt: adopt || null } }),
    outcome: ({ objects }) => `Tenant ${tenant.id} is provisioned: ${objects.join(", ")}.`,
  };
}

export const adoptable = (tenant) => ({ ...provisioning(tenant), label: "Provision again" });

export function edit(tenant, etag) {
  const modes = [["", "as for the service"], ["off", "off"], ["recommend", "recommend"], ["apply", "apply"]];
  return {
    label: "Edit",
    title: `Edit ${tenant.id}`,
    fields: [
      { name: "weight", label: "Weight", type: "number", min: 1, max: 1000, value: tenant.weight, help: "Its share when connections run short." },
      {
        name: "max_leases", label: "Leases at a time, at most", help: "Empty: no limit.",
        type: "number", min: 1, max: 10_000, value: tenant.max_leases ?? undefined,
      },
      { name: "advisor_mode", label: "Advisor", type: "select", value: tenant.advisor_mode ?? "", options: modes },
      { name: "labels", label: "Labels", type: "lines", value: labelLines(tenant.labels), help: "One per line, as key: value." },
    ],
    request: ({ weight, max_leases, advisor_mode, labels }) => ({
      method: "PUT",
      path: path(tenant),
      body: { weight, max_leases: max_leases ?? null, advisor_mode: advisor_mode || null, labels: labelsIn(labels) },
      ifMatch: etag,
    }),
    outcome: () => `Tenant ${tenant.id} was changed.`,
  };
}

export function rotation(tenant) {
  const isShared = tenant.strategy === "shared";
  return {
    label: "Rotate password",
    title: `Rotate the password of ${tenant.id}`,
    text: "Its role gets a new password, which the service keeps. No lease is interrupted; connections are replaced as they become free.",
    affects: isShared ? `all shared tenants of server ${tenant.server}, which log in as one role` : null,
    request: () => ({ method: "POST", path: `${path(tenant)}/rotate-credentials`, query: { scope: isShared ? "pool" : null } }),
    outcome: ({ role, version, connections }) =>
      `Role ${role} has version ${version} of its password; ${counted(connections, "connection")} replaced.`,
  };
}

export function deletion(tenant, etag) {
  return {
    label: "Delete",
    title: `Delete ${tenant.id}`,
    text: "Closes its pool, disables its login and deletes its record. Its data stays in Postgres.",
    isDangerous: true,
    retype: tenant.id,
    request: () => ({ method: "DELETE", path: path(tenant), ifMatch: etag }),
    outcome: ({ closed, cut }) => `Tenant ${tenant.id} was deleted; ${counted(closed, "connection")} closed, ${counted(cut, "lease")} cut.`,
    done: () => go("tenants"),
  };
}
