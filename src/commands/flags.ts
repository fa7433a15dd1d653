/** Flags that several commands have, and what their values must be. */

import { statSync } from "node:fs";
import { type Command, InvalidArgumentError, Option } from "commander";
import { type Address, parseAddress } from "../address.ts";
import { parseDuration } from "../duration.ts";
import { messageOf } from "../errors.ts";
import { type LogFormat, type LogLevel, logFormats, logLevels } from "../log.ts";
import type { TerminalFlags } from "./terminal.ts";

/** A parser whose complaint, "expected ...", commander puts behind the flag and its value. */
function parser<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      throw new InvalidArgumentError(messageOf(error));
    }
  };
}

/** Milliseconds from a Go duration. */
export const duration = parser(parseDuration);

/** As `duration`, but more than nothing: a limit of 0 would end what it limits at once. */
export const positiveDuration = parser((text) => {
  const ms = parseDuration(text);
  if (ms <= 0) {
    throw new RangeError("expected a duration of more than 0");
  }
  return ms;
});

export const listenAddress = parser(parseAddress);

export const dialAddress = parser((text): Address => {
  const address = parseAddress(text);
  if (address.kind === "tcp" && address.port === 0) {
    throw new RangeError("expected the port that the server listens on, not 0");
  }
  return address;
});

export const maxInt32 = 2 ** 31 - 1;

/** A whole number within bounds. */
export const integer = (min: number, max = maxInt32) =>
  parser((text) => {
    const number = Number(text);
    if (!/^[+-]?\d+$/.test(text) || number < min || number > max) {
      throw new RangeError(`expected a whole number from ${min} to ${max}`);
    }
    return number;
  });

/** A share of a whole. */
export const share = parser((text) => {
  const number = Number(text);
  if (!/^[\d.]+$/.test(text) || !(number >= 0 && number <= 1)) {
    throw new RangeError("expected a share from 0 to 1, such as 0.1");
  }
  return number;
});

/** The rights on a file, in octal. The owner must have both: brewctl itself looks whether a server is there. */
const socketMode = parser((text) => {
  const mode = Number.parseInt(text, 8);
  if (!/^0?[0-7]{3}$/.test(text) || (mode & 0o600) !== 0o600) {
    throw new RangeError("expected three octal digits from 600 to 777, such as 0660");
  }
  return mode;
});

/** Makes the option of a command that can listen on a unix socket. */
export function socketModeOption(): Option {
  return new Option(
    "--socket-mode <mode>",
    "who may connect to a unix socket: the rights on its file, in octal, whatever the umask",
  )
    .default(0o660, "0660")
    .argParser(socketMode);
}

export const nonEmpty = parser((text) => {
  if (text === "") {
    throw new RangeError("expected something");
  }
  return text;
});

/** Throws a `RangeError` for what cannot be the path of a file. Nothing is made. */
function checkFilePath(path: string): void {
  if (path === "" || path.endsWith("/")) {
    throw new RangeError("expected the path of a file");
  }
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    throw new RangeError("expected the path of a file, and this is a folder");
  }
}

/** The path of a file, which need not be there. */
export const filePath = parser((path) => {
  checkFilePath(path);
  return path;
});

/** The path of a folder, which need not be there. */
export const folderPath = parser((path) => {
  if (path === "" || statSync(path, { throwIfNoEntry: false })?.isDirectory() === false) {
    throw new RangeError("expected the path of a folder");
  }
  return path;
});

/** What SQLite would take for something else than a file is refused: nothing of it would be kept. */
export const databasePath = parser((path) => {
  checkFilePath(path);
  if (path === ":memory:" || path.startsWith("file:")) {
    throw new RangeError("expected the path of a file");
  }
  return path;
});

export const outputs = ["text", "ndjson"] as const;

/** What every command that talks to a server can be told. */
export interface ClientFlags extends TerminalFlags {
  readonly addr: Address;
  readonly output: (typeof outputs)[number];
  readonly waitReady?: number;
  readonly deadline?: number;
}

export function addrOption(): Option {
  return new Option("--addr <address>", "the server: host:port, :port or unix:/path")
    .default(parseAddress("localhost:50052"), "localhost:50052")
    .env("BREWCTL_ADDR")
    .argParser(dialAddress);
}

export interface LogFlags {
  readonly logFormat: LogFormat;
  readonly logLevel: LogLevel;
}

/** Of a command that writes a log to standard error. `debug`: what more is then told. */
export function withLogFlags(command: Command, debug: string): Command {
  return command
    .addOption(
      new Option("--log-format <format>", "how the log is written, to standard error")
        .choices(logFormats)
        .default("text")
        .env("BREWCTL_LOG_FORMAT"),
    )
    .addOption(
      new Option("--log-level <level>", `what is logged; debug tells ${debug}`)
        .choices(logLevels)
        .default("info")
        .env("BREWCTL_LOG_LEVEL"),
    );
}

export function withClientFlags(command: Command): Command {
  return withTerminalFlags(command)
    .addOption(addrOption())
    .addOption(outputOption())
    .option("--wait-ready <duration>", "wait so long for the server to come up", positiveDuration)
    .option(
      "--deadline <duration>",
      "end the whole call after so long (exit 68)",
      positiveDuration,
    );
}

export function outputOption(): Option {
  return new Option("-o, --output <format>", "how data is printed; ndjson is one object a line")
    .choices(outputs)
    .default("text")
    .env("BREWCTL_OUTPUT");
}

export function withTerminalFlags(command: Command): Command {
  return command
    .option("-q, --quiet", "no talk: data, errors, and what --stats and its like show")
    .option("--no-color", "no colour; NO_COLOR=1 does the same")
    .option("--no-progress", "no spinner and no progress lines; CI=1 does the same");
}
