/**
 * The server's log: a message and named fields, one line each.
 *
 * text: `subscribe ended: limit reached sent=5`, as the original lesson prints it.
 * json: `{"time":"2026-01-02T03:04:05.678Z","level":"info","msg":"subscribe ended: limit reached","sent":5}`
 */

export const logFormats = ["text", "json"] as const;
export type LogFormat = (typeof logFormats)[number];

/** What is written: everything, or everything but `debug`. */
export const logLevels = ["info", "debug"] as const;
export type LogLevel = (typeof logLevels)[number];

export type LogFields = Readonly<Record<string, string | number | bigint | boolean | undefined>>;

export interface Logger {
  /** What only somebody who is looking for something wants to read; described only if it is read. */
  debug(describe: () => string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  /** Something an operator should look at; text lines begin with `WARN`. */
  warn(message: string, fields?: LogFields): void;
  /** A fault in brewctl, with the stack in a field; text lines begin with `ERROR`. */
  error(message: string, fields?: LogFields): void;
}

/** What of the log waits to be written because its reader is slow. */
export interface LogBacklog {
  /** The bytes that wait now. */
  readonly bytes: number;
  /** Calls `report` once, when nothing waits any more. */
  onceEmpty(report: () => void): void;
}

/** The longest message of a line, and the longest value of a field, in UTF-16 units; the rest is cut. */
export const maxMessageLength = 2_048;
export const maxFieldLength = 512;

/** The longest field of an error, such as a stack, in UTF-16 units. */
export const maxErrorFieldLength = 4_096;

/**
 * The most bytes that wait for a slow reader of the log. Beyond, lines are dropped and counted, or a
 * reader that has stopped would make the process grow for ever.
 */
export const maxBacklogBytes = 1024 * 1024;

type Level = keyof Logger;

export interface LogOptions {
  readonly format: LogFormat;
  readonly level?: LogLevel;
  /** Takes one line, without its newline. */
  readonly write: (line: string) => void;
  /** Without it, no line is dropped. */
  readonly backlog?: LogBacklog;
  /** Unix milliseconds; only json lines carry the time. */
  readonly now: () => number;
}

export function createLogger(options: LogOptions): Logger {
  const { format, level = "info", write, backlog, now } = options;
  const line = format === "json" ? jsonLine : textLine;
  let dropped = 0;
  const reportDropped = () => {
    write(line("warn", "the log's reader was too slow", { lines_dropped: dropped }, now));
    dropped = 0;
  };
  const at =
    (level: Level) =>
    (message: string, fields: LogFields = {}) => {
      if (dropped > 0 || (backlog !== undefined && backlog.bytes > maxBacklogBytes)) {
        dropped += 1;
        if (dropped === 1) {
          backlog?.onceEmpty(reportDropped);
        }
        return;
      }
      const maxLength = level === "error" ? maxErrorFieldLength : maxFieldLength;
      write(line(level, cut(message, maxMessageLength), cutFields(fields, maxLength), now));
    };
  return {
    debug(describe, fields) {
      if (level === "debug") {
        at("debug")(describe(), fields);
      }
    },
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
  };
}

/** Cuts a text that a peer may have made long; a cut text ends with an ellipsis. */
function cut(text: string, maxLength: number): string {
  return text.length > maxLength ? `${text.slice(0, maxLength - 1).toWellFormed()}…` : text;
}

function cutFields(fields: LogFields, maxLength: number): LogFields {
  const isLong = (value: LogFields[string]) =>
    typeof value === "string" && value.length > maxLength;
  return Object.values(fields).some(isLong)
    ? Object.fromEntries(
        Object.entries(fields).map(([name, value]) => [
          name,
          typeof value === "string" ? cut(value, maxLength) : value,
        ]),
      )
    : fields;
}

function textLine(level: Level, message: string, fields: LogFields): string {
  const isCalm = level === "info" || level === "debug";
  const words = isCalm ? [message] : [level.toUpperCase(), message];
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined) {
      words.push(`${name}=${textValue(value)}`);
    }
  }
  return words.join(" ");
}

/** Quoted as Go's slog does it: when empty, or when a reader could mistake it for more than a word. */
function textValue(value: NonNullable<LogFields[string]>): string {
  const text = String(value);
  return /^[\w.:,/+@()[\]-]+$/.test(text) ? text : spelledOut(JSON.stringify(text));
}

/**
 * Characters that JSON leaves as they are and terminals obey, or hide, as JSON spells them: those of
 * plain.ts, on which a test insists.
 */
function spelledOut(json: string): string {
  return json.replace(
    /[\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** A number where it is exact; else a text, since most readers would round it. */
function numberOf(value: bigint): number | string {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : String(value);
}

function jsonLine(level: Level, message: string, fields: LogFields, now: () => number): string {
  const record = { time: new Date(now()).toISOString(), level, msg: message, ...fields };
  return spelledOut(
    JSON.stringify(record, (_, value) => (typeof value === "bigint" ? numberOf(value) : value)),
  );
}
