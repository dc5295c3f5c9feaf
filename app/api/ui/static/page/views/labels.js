// Labels as people write them, one per line.
export function labelsIn(text) {
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  return Object.fromEntries(lines.map((line) => {
    const at = line.indexOf(":");
    return at < 0 ? [line, ""] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
  }));
}

export function labelLines(labels) {
  return Object.entries(labels).map(([key, value]) => `${key}: ${value}`).join("\n");
}
