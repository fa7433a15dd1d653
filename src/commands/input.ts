/**
 * Live input, `--input FILE` or `--input -`: lines of a file or of standard input, each handed on
 * as soon as it is complete. Nothing is read unless the flag asks for it.
 */

import { closeSync, createReadStream, fstatSync, openSync, statSync } from "node:fs";
import { access, constants, stat } from "node:fs/promises";
import { addAbortSignal, type Readable } from "node:stream";
import { TextDecoder } from "node:util";
import { formatBytes } from "../bytes.ts";
import { messageOf, UsageError } from "../errors.ts";
import { plain } from "../plain.ts";
import type { Terminal } from "./terminal.ts";

/** A line of input and where it stands: `orders.ndjson:17`, `stdin:17`. */
export interface Line {
  readonly text: string;
  readonly where: string;
}

/** A line that is longer has no end that we could wait for; the size of the largest message. */
const maxLineBytes = 4 * 1024 * 1024;

const newline = 0x0a;

/** Fails early: throws `UsageError` if it cannot be read. Nothing is read yet. */
export async function checkInput(path: string, stdin: typeof process.stdin): Promise<void> {
  if (path === "-") {
    // Node reads a folder as if it were empty.
    if (fstatSync(stdin.fd).isDirectory()) {
      throw new UsageError("--input -: standard input is a folder", {
        hint: "expected lines, from a file or a pipe",
      });
    }
    return;
  }
  try {
    // Not opened: to open a named pipe and close it again would end its writer.
    await access(path, constants.R_OK);
    if ((await stat(path)).isDirectory()) {
      throw new Error("expected a file, not a folder");
    }
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
    throw new UsageError(`--input ${path}: ${isMissing ? "no such file" : messageOf(error)}`, {
      hint: "expected a file of lines, or - for standard input",
    });
  }
}

export interface InputOptions {
  readonly stdin: typeof process.stdin;
  /** Ends the reading, also while nothing comes. */
  readonly signal: AbortSignal;
  /** The longest line that is read, in bytes. */
  readonly maxBytes?: number;
}

/**
 * The lines that are not blank, without their line ends; a last line need not have one. Throws
 * `UsageError` naming the line for one that is too long or not UTF-8, and the signal's reason when
 * it aborts. For an input that is worth nothing unless it is whole.
 */
export async function* lines(path: string, options: InputOptions): AsyncGenerator<Line, void> {
  for await (const line of linesAndFaults(path, options)) {
    if (line instanceof UsageError) {
      throw line;
    }
    yield line;
  }
}

/**
 * The lines of an input, each through `parse`. A line that cannot be read, or for which `parse` throws
 * `UsageError`, is refused and costs no other. Throws the signal's reason when it aborts.
 */
export async function* parsedLines<T>(
  path: string,
  {
    parse,
    refused,
    ...options
  }: InputOptions & { readonly parse: (line: Line) => T; readonly refused: RefusedLines },
): AsyncGenerator<T, void> {
  for await (const line of linesAndFaults(path, options)) {
    let item: T;
    try {
      if (line instanceof UsageError) {
        throw line;
      }
      item = parse(line);
    } catch (error) {
      if (!(error instanceof UsageError)) {
        throw error;
      }
      refused.add(error);
      continue;
    }
    yield item;
  }
}

/** The lines of an input that were refused. Each is named on standard error, also with --quiet. */
export class RefusedLines {
  readonly #terminal: Pick<Terminal, "complain">;
  #count = 0;
  #toldHint: string | undefined;

  constructor(terminal: Pick<Terminal, "complain">) {
    this.#terminal = terminal;
  }

  get count(): number {
    return this.#count;
  }

  /** What a verdict says of them, such as `, 2 lines refused`; empty if there were none. */
  get tally(): string {
    const lines = this.#count === 1 ? "line" : "lines";
    return this.#count === 0 ? "" : `, ${this.#count} ${lines} refused`;
  }

  /** The exit code of a command that had no other trouble. */
  get exit(): number {
    return this.#count > 0 ? 2 : 0;
  }

  /** Names the line with why it was refused. What was expected is said once in a row. */
  add({ message, hint }: UsageError): void {
    this.#count += 1;
    this.#terminal.complain(`brewctl: ${plain(message)}`);
    if (hint !== undefined && hint !== this.#toldHint) {
      this.#terminal.complain(`  ${hint}`);
    }
    this.#toldHint = hint;
  }
}

/** Each line, or in its place why it cannot be read. Throws only if nothing more can be read. */
async function* linesAndFaults(
  path: string,
  { stdin, signal, maxBytes = maxLineBytes }: InputOptions,
): AsyncGenerator<Line | UsageError, void> {
  const [source, name]: [Readable, string] =
    path === "-" ? [stdin, "stdin"] : [openFile(path, signal), path];
  addAbortSignal(signal, source);
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let number = 1;
  let rest: Buffer[] = [];
  let restBytes = 0;

  /** Adds to the line that is being read; the first bytes too many give the fault, all others nothing. */
  const add = (bytes: Buffer): UsageError | undefined => {
    const wasTooLong = restBytes > maxBytes;
    restBytes += bytes.length;
    if (restBytes <= maxBytes) {
      rest.push(bytes);
      return undefined;
    }
    rest = [];
    return wasTooLong
      ? undefined
      : new UsageError(`${name}:${number}: a line of more than ${formatBytes(maxBytes)}`);
  };
  /** Ends the line that is being read; undefined if it is blank, or was found to be too long. */
  const end = (): Line | UsageError | undefined => {
    const where = `${name}:${number}`;
    const line = restBytes > maxBytes ? undefined : readLine(decoder, Buffer.concat(rest), where);
    number += 1;
    rest = [];
    restBytes = 0;
    return line;
  };

  try {
    for await (const chunk of source as AsyncIterable<Buffer>) {
      let from = 0;
      for (let to = chunk.indexOf(newline); to >= 0; to = chunk.indexOf(newline, from)) {
        const fault = add(chunk.subarray(from, to));
        const line = end();
        const found = fault ?? line;
        from = to + 1;
        if (found !== undefined) {
          yield found;
        }
      }
      const fault = add(chunk.subarray(from));
      if (fault !== undefined) {
        yield fault;
      }
    }
    const last = end();
    if (last !== undefined) {
      yield last;
    }
  } catch (error) {
    // The stream, torn down by the signal, reports an AbortError.
    signal.throwIfAborted();
    throw new UsageError(`--input ${path}: ${messageOf(error)}`, { cause: error });
  } finally {
    source.destroy();
  }
}

/** Between two attempts to release a thread, in milliseconds, and how many there are. */
const releaseEveryMs = 2;
const maxReleases = 500;

/**
 * To open a named pipe takes until somebody opens it for writing, and nothing interrupts that: not even
 * the end of the process, which waits for its threads. So on abort we do it ourselves. The thread may
 * be just about to open it; it is waited for right here, since nothing else is left to be done.
 */
function openFile(path: string, signal: AbortSignal): Readable {
  const file = createReadStream(path);
  const release = () => {
    for (let tries = 0; tries < maxReleases; tries += 1) {
      try {
        closeSync(openSync(path, constants.O_WRONLY | constants.O_NONBLOCK));
        return;
      } catch {
        // Nobody reads there, or not yet.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, releaseEveryMs);
      }
    }
  };
  signal.addEventListener("abort", () => {
    if (file.pending && statSync(path, { throwIfNoEntry: false })?.isFIFO()) {
      release();
    }
  });
  return file;
}

/** Undefined for a blank line. */
function readLine(
  decoder: TextDecoder,
  bytes: Buffer,
  where: string,
): Line | UsageError | undefined {
  let text: string;
  try {
    // A byte-order mark is dropped by the decoder, a carriage return here.
    text = decoder.decode(bytes).replace(/\r$/, "");
  } catch {
    return new UsageError(`${where}: not valid UTF-8`);
  }
  return text.trim() === "" ? undefined : { text, where };
}
