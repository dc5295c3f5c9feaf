// Addresses of the dashboards in monitoring/grafana.

export function dashboard(grafana, uid, variables = {}) {
  const url = new URL(`d/${uid}`, grafana.endsWith("/") ? grafana : `${grafana}/`);
  for (const [name, value] of Object.entries(variables)) url.searchParams.set(`var-${name}`, value);
  return url.href;
}
