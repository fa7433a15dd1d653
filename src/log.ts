/**
 * The server's log: a message and named fields, one line each.
 *
 * text: `subscribe ended: limit reached sent=5`, as the original lesson prints it.
 * json: `{"time":"2026-01-02T03:04:05.678Z","level":"info","msg":"subscribe ended: limit reached","sent":5}`
 */

export const logFormats = ["text", "json"] as const;
export type LogFormat = (typeof logFormats)[number];

export type LogFields = Readonly<Record<string, string | number | bigint | boolean | undefined>>;

export interface Logger {
  info(message: string, fields?: LogFields): void;
  /** Something an operator should look at; text lines begin with `WARN`. */
  warn(message: string, fields?: LogFields): void;
  /** A fault in brewctl, with the stack in a field; text lines begin with `ERROR`. */
  error(message: string, fields?: LogFields): void;
}

type Level = keyof Logger;

export interface LogOptions {
  readonly format: LogFormat;
  /** Takes one line, without its newline. */
  readonly write: (line: string) => void;
  /** Unix milliseconds; only json lines carry the time. */
  readonly now: () => number;
}

export function createLogger({ format, write, now }: LogOptions): Logger {
  const line = format === "json" ? jsonLine : textLine;
  const at =
    (level: Level) =>
    (message: string, fields: LogFields = {}) =>
      write(line(level, message, fields, now));
  return { info: at("info"), warn: at("warn"), error: at("error") };
}

function textLine(level: Level, message: string, fields: LogFields): string {
  const words = level === "info" ? [message] : [level.toUpperCase(), message];
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

function jsonLine(level: Level, message: string, fields: LogFields, now: () => number): string {
  const record = { time: new Date(now()).toISOString(), level, msg: message, ...fields };
  return spelledOut(
    JSON.stringify(record, (_, value) => (typeof value === "bigint" ? String(value) : value)),
  );
}
