/**
 * Live input, `--input FILE` or `--input -`: lines of a file or of standard input, each handed on
 * as soon as it is complete. Nothing is read unless the flag asks for it.
 */

import { closeSync, createReadStream, fstatSync, openSync, statSync } from "node:fs";
import { access, constants, stat } from "node:fs/promises";
import { addAbortSignal, type Readable } from "node:stream";
import { TextDecoder } from "node:util";
import { type DescMessage, fromJson, type JsonValue, type MessageShape } from "@bufbuild/protobuf";
import { messageOf, UsageError } from "../errors.ts";

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

/**
 * The lines that are not blank, without their line ends; a last line need not have one. Throws
 * `UsageError` naming the line for one that is too long or not UTF-8, and the signal's reason when
 * it aborts, also while nothing comes.
 */
export async function* lines(
  path: string,
  {
    stdin,
    signal,
    maxBytes = maxLineBytes,
  }: {
    readonly stdin: typeof process.stdin;
    readonly signal: AbortSignal;
    /** Of a line. */
    readonly maxBytes?: number;
  },
): AsyncGenerator<Line, void> {
  const [source, name]: [Readable, string] =
    path === "-" ? [stdin, "stdin"] : [openFile(path, signal), path];
  addAbortSignal(signal, source);
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let number = 0;
  let rest: Buffer[] = [];
  let restBytes = 0;

  const take = (bytes: Buffer): Line | undefined => {
    number += 1;
    const where = `${name}:${number}`;
    const text = readText(decoder, bytes, where);
    return text.trim() === "" ? undefined : { text, where };
  };

  try {
    for await (const chunk of source as AsyncIterable<Buffer>) {
      let from = 0;
      for (let to = chunk.indexOf(newline); to >= 0; to = chunk.indexOf(newline, from)) {
        const line = take(Buffer.concat([...rest, chunk.subarray(from, to)]));
        rest = [];
        restBytes = 0;
        from = to + 1;
        if (line !== undefined) {
          yield line;
        }
      }
      rest.push(chunk.subarray(from));
      restBytes += chunk.length - from;
      if (restBytes > maxBytes) {
        throw new UsageError(`${name}:${number + 1}: a line of more than ${maxBytes} bytes`);
      }
    }
    const last = restBytes > 0 ? take(Buffer.concat(rest)) : undefined;
    if (last !== undefined) {
      yield last;
    }
  } catch (error) {
    // The stream, torn down by the signal, reports an AbortError.
    signal.throwIfAborted();
    if (error instanceof UsageError) {
      throw error;
    }
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

function readText(decoder: TextDecoder, bytes: Buffer, where: string): string {
  try {
    // A byte-order mark is dropped by the decoder, a carriage return here.
    return decoder.decode(bytes).replace(/\r$/, "");
  } catch {
    throw new UsageError(`${where}: not valid UTF-8`);
  }
}

/**
 * A message from a line of ProtoJSON. Throws `UsageError` naming the line and the field for one
 * that is not JSON, has a field that the message lacks, or a value of another type.
 */
export function parseMessage<M extends DescMessage>(
  schema: M,
  json: JsonValue,
  where: string,
): MessageShape<M> {
  try {
    return fromJson(schema, json);
  } catch (error) {
    throw new UsageError(`${where}: ${messageOf(error)}`);
  }
}

export function parseJson({ text, where }: Line, what: string): { [name: string]: JsonValue } {
  let json: JsonValue;
  try {
    json = JSON.parse(text) as JsonValue;
  } catch (error) {
    throw new UsageError(`${where}: not JSON: ${messageOf(error)}`, { hint: `expected ${what}` });
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new UsageError(`${where}: expected a JSON object`, { hint: `expected ${what}` });
  }
  return json;
}
