// Numbers and times for people.

// Milliseconds: in ms below a second, in s from there on. Values that stand together have the unit of the largest.
export function milliseconds(...values) {
  const inSeconds = Math.max(...values.map((value) => value ?? 0)) >= 999.5;
  return values.map((value) => {
    if (value === null || value === undefined) return "–";
    if (!inSeconds) return value >= 100 ? `${Math.round(value)} ms` : `${value.toFixed(1)} ms`;
    const seconds = value / 1000;
    return `${seconds >= 100 ? number(seconds) : +seconds.toPrecision(3)} s`;
  }).join(", ");
}

export function number(value, digits = 0) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

// A share of 0 to 1.
export function percent(share) {
  return share > 0 && share < 0.001 ? "under 0.1 %" : `${+(share * 100).toFixed(1)} %`;
}

// A sentence in which no line ends between a number and its unit.
export function unbroken(text) {
  return text.replace(/(\d) (?=(%|ms|s|h|min|MiB)(\W|$))/g, "$1\u00a0");
}

export function counted(count, noun) {
  return `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
}

// A length of time, in its largest two units.
export function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  if (hours) return `${number(hours)} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

export function ago(time) {
  const seconds = Math.max(0, Math.round((Date.now() - new Date(time)) / 1000));
  for (const [unit, letter] of [[86_400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= unit) return `${Math.floor(seconds / unit)} ${letter} ago`;
  }
  return `${seconds} s ago`;
}

export function dateTime(time) {
  return new Date(time).toLocaleString("sv").slice(0, 19);
}

// The pause of a pool in words.
export function paused({ pause }) {
  return `paused ${ago(pause.since)} by ${pause.by}`;
}
