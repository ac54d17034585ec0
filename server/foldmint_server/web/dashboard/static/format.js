// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export const NONE = "–";

/** 12,345; a dash for what is not known. */
export const count = (value) => (value === null || value === undefined ? NONE : whole.format(value));

/** 12.3K from 10,000 on, for places with little room. */
export const short = (value) => (value < 10000 ? count(value) : compact.format(value));

/** Three significant digits: 0.123, 1.23, 12.3, 1,230. */
export function figure(value) {
  if (value === null || value === undefined) return NONE;
  if (value === 0) return "0";
  return value >= 100 ? whole.format(value) : new Intl.NumberFormat("en", { maximumSignificantDigits: 3 }).format(value);
}

/** A share as percent, with as many digits as it needs. */
export function percent(share) {
  if (share === null || share === undefined || !Number.isFinite(share)) return NONE;
  if (share === 1 || share === 0) return `${100 * share} %`;
  // Never rounded up to all, nor down to nothing.
  const value = Math.min(100 * share, 99.99);
  return `${value >= 10 ? value.toFixed(1).replace(/^100\.0$/, "99.9") : figure(value)} %`;
}

/** Seconds as ms, s or min. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 1) return `${figure(1000 * seconds)} ms`;
  if (seconds < 120) return `${figure(seconds)} s`;
  if (seconds < 7200) return `${whole.format(seconds / 60)} min`;
  if (seconds < 172800) return `${whole.format(seconds / 3600)} h`;
  return `${whole.format(seconds / 86400)} days`;
}

/** A size in MiB or GiB. */
export const bytes = (size) => (size < 2 ** 30 ? `${figure(Math.round(size / 2 ** 20))} MiB` : `${figure(size / 2 ** 30)} GiB`);

/** How long before now a time was, both in seconds since 1970. */
export function ago(time, now) {
  const seconds = Math.max(0, now - time);
  return seconds < 5 ? "just now" : `${duration(Math.round(seconds))} ago`;
}

/** Numbers as runs: 3–5, 9. */
export function runs(numbers) {
  const parts = [];
  for (let from = 0, to = 0; from < numbers.length; from = to = to + 1) {
    while (numbers[to + 1] === numbers[to] + 1) to += 1;
    parts.push(from === to ? `${numbers[from]}` : `${numbers[from]}–${numbers[to]}`);
  }
  return parts.join(", ");
}
