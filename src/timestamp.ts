/**
 * Points in time as people and programs write them: Unix milliseconds, or RFC 3339 with its zone.
 *
 * `Date.parse` is not used for what it accepts: it reads `till 7` as July 2001, moves the 30th of
 * February to March, and takes a time without a zone as the local one.
 */

const shape = /^(\d{4}-\d\d-\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))$/;

const minuteMs = 60_000;
const dayMs = 24 * 60 * minuteMs;

/** A number is suspected to be seconds if it is then this close to the present, in milliseconds. */
const nearMs = 10 * 365.25 * dayMs;

/** The first millisecond of 2001: no sale is older, but a number of seconds read as milliseconds is. */
const firstPlausibleMs = 978_307_200_000;

export const expectedTimestamp =
  "expected Unix milliseconds, or a time with its zone such as 2026-01-02T03:04:05Z";

/**
 * Returns the Unix milliseconds of a text. Digits are milliseconds already; anything else must be a time
 * of RFC 3339 with `Z` or an offset. Digits after the millisecond are cut off. A leap second, 23:59:60
 * in UTC, is the first second of the next day, as POSIX counts. Throws a `RangeError` that says what was
 * expected for everything else, and for seconds that were given in place of milliseconds, which are
 * recognized by the present time `now`.
 */
export function parseTimestamp(text: string, now: number): number {
  if (/^\d+$/.test(text)) {
    const ms = Number(text);
    if (!Number.isSafeInteger(ms)) {
      throw new RangeError(expectedTimestamp);
    }
    const asSeconds = ms * 1000;
    const isPlausible = asSeconds >= firstPlausibleMs && Math.abs(asSeconds - now) < nearMs;
    if (ms < firstPlausibleMs && isPlausible) {
      throw new RangeError(`${ms} are seconds; expected milliseconds, which are ${asSeconds}`);
    }
    return ms;
  }
  return parseRfc3339(text);
}

/** The Unix milliseconds of a time as RFC 3339 writes it. Throws as `parseTimestamp` does. */
export function parseRfc3339(text: string): number {
  const [, day = "", hour, minute, second, fraction = "", sign, ...offset] = shape.exec(text) ?? [];
  const midnight = midnightOf(day);
  if (midnight === undefined) {
    throw new RangeError(
      day === "" ? expectedTimestamp : `there is no day ${day}; ${expectedTimestamp}`,
    );
  }
  const [hours, minutes, seconds] = [Number(hour), Number(minute), Number(second)];
  const [offsetHours, offsetMinutes] = sign === undefined ? [0, 0] : offset.map(Number);
  const offsetMs = minutesOf(offsetHours, offsetMinutes) * minuteMs * (sign === "-" ? -1 : 1);
  const wholeMs = midnight + minutesOf(hours, minutes) * minuteMs + seconds * 1000 - offsetMs;
  const isLeapSecond = seconds === 60 && wholeMs % dayMs === 0;
  if (Number.isNaN(wholeMs) || (seconds > 59 && !isLeapSecond)) {
    throw new RangeError(`there is no such time of day; ${expectedTimestamp}`);
  }
  return wholeMs + Number(fraction.slice(0, 3).padEnd(3, "0"));
}

/** NaN for an hour or a minute that does not exist. */
function minutesOf(hours = Number.NaN, minutes = Number.NaN): number {
  return hours <= 23 && minutes <= 59 ? hours * 60 + minutes : Number.NaN;
}

/** The Unix milliseconds at which a day such as 2026-01-02 begins in UTC; undefined if it does not exist. */
function midnightOf(day: string): number | undefined {
  const ms = Date.parse(`${day}T00:00:00Z`);
  const isDay = !Number.isNaN(ms) && new Date(ms).toISOString().startsWith(day);
  return isDay ? ms : undefined;
}
