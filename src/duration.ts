/** Durations as Go writes them, because the lesson's commands do: `200ms`, `1s`, `1m30s`, `0`. */

const unitsMs: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** The longest timer Node has: 2^31 - 1 ms, a little under 25 days. A longer one fires at once. */
export const maxDurationMs = 2 ** 31 - 1;

const shape = /^(\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)/;

const expected = "expected a duration such as 200ms, 1s or 1m30s";

/**
 * Milliseconds of a Go duration. Throws a `RangeError` that says what was expected for anything
 * else: a bare number other than 0 (which unit?), a negative one, one over `maxDurationMs`.
 */
export function parseDuration(text: string): number {
  if (text === "0") {
    return 0;
  }
  let rest = text;
  let ms = 0;
  do {
    const match = shape.exec(rest);
    const [part, amount, , unit] = match ?? [];
    if (part === undefined || amount === undefined || unit === undefined) {
      throw new RangeError(expected);
    }
    ms += Number(amount) * (unitsMs[unit] ?? Number.NaN);
    rest = rest.slice(part.length);
  } while (rest !== "");
  if (ms > maxDurationMs) {
    throw new RangeError("expected a duration of at most 596h (a little under 25 days)");
  }
  return ms;
}

/** The shortest Go spelling: `0s`, `200ms`, `1.5s`, `1m30s`, `1h0m0s`. */
export function formatDuration(ms: number): string {
  if (ms < 1000) {
    return ms === 0 ? "0s" : `${Number(ms.toFixed(6))}ms`;
  }
  const hours = Math.floor(ms / 3_600_000);
  const minutes = Math.floor((ms % 3_600_000) / 60_000);
  const seconds = Number(((ms % 60_000) / 1000).toFixed(6));
  if (hours > 0) {
    return `${hours}h${minutes}m${seconds}s`;
  }
  return minutes > 0 ? `${minutes}m${seconds}s` : `${seconds}s`;
}

/** How long something took, for people: `5.02 s`, `1 m 5 s`. */
export function formatElapsed(ms: number): string {
  if (ms < 100_000) {
    return `${(ms / 1000).toFixed(2)} s`;
  }
  return `${Math.floor(ms / 60_000)} m ${Math.floor((ms % 60_000) / 1000)} s`;
}

/** A time of any size to three digits, for tables and axes: `0 ms`, `0.25 ms`, `201 ms`, `1.5 s`, `2 m`, `3 h`, `4 d`. */
export function formatBrief(ms: number): string {
  const [size, unit] = briefUnits.find(([, , below]) => ms < below) ?? [86_400_000, "d"];
  return `${Number((ms / size).toPrecision(3))} ${unit}`;
}

/** Size in milliseconds, name, and below how many milliseconds it is used. */
const briefUnits: readonly (readonly [number, string, number])[] = [
  [1, "ms", 999.5],
  [1_000, "s", 99_950],
  [60_000, "m", 99 * 60_000],
  [3_600_000, "h", 48 * 3_600_000],
];
