/**
 * The frames in which gRPC sends messages over an HTTP/2 stream: one byte that says whether the
 * message is compressed, four bytes of length (big-endian), and the message. A message may begin and
 * end anywhere in HTTP/2's DATA frames.
 */

import { StatusError } from "../errors.ts";

/** What comes before each message, in bytes. */
export const headerBytes = 5;

const empty = Buffer.alloc(0);

/** The bytes of these messages, framed, in one buffer. `totalBytes` is the sum of their lengths. */
export function framed(messages: readonly Uint8Array[], totalBytes: number): Buffer {
  const frames = Buffer.allocUnsafe(totalBytes + messages.length * headerBytes);
  let at = 0;
  for (const message of messages) {
    frames[at] = 0;
    frames.writeUInt32BE(message.byteLength, at + 1);
    frames.set(message, at + headerBytes);
    at += headerBytes + message.byteLength;
  }
  return frames;
}

/** The bytes that a message takes on the wire. */
export function framedBytes(message: Uint8Array): number {
  return message.byteLength + headerBytes;
}

/**
 * A message may come in so many pieces of any size. In more pieces, they must have so many bytes on
 * average: each piece is work, and whoever sends one byte at a time keeps a server busy for nothing.
 * HTTP/2 implementations send pieces of up to 16 KiB.
 */
const maxSmallPieces = 64;
const minPieceBytes = 64;

export interface FrameDecoderOptions {
  readonly maxMessageBytes: number;
  /** Each message comes with its header, and may be compressed: the caller inflates it. */
  readonly keepsHeaders?: boolean;
}

/**
 * Cuts a stream of bytes into messages.
 *
 * A message that comes in pieces is copied into one buffer that grows with what has come. To keep the
 * pieces instead, as grpc-js does, lets a peer that sends one byte a frame take more than a hundred
 * bytes of memory for each of them; to make room for the announced length lets it take 4 MiB for five.
 */
export class FrameDecoder {
  readonly #maxMessageBytes: number;
  readonly #keepsHeaders: boolean;
  readonly #header = Buffer.alloc(headerBytes);
  #headerLength = 0;
  /** The message that is coming, and how much of it has come. */
  #message: Buffer | undefined;
  #messageBytes = 0;
  #length = 0;
  #pieces = 0;

  constructor({ maxMessageBytes, keepsHeaders = false }: FrameDecoderOptions) {
    this.#maxMessageBytes = maxMessageBytes;
    this.#keepsHeaders = keepsHeaders;
  }

  /** How much memory the message takes that has not come whole yet, in bytes. */
  get heldBytes(): number {
    return this.#message?.length ?? 0;
  }

  /**
   * The messages that are whole with these bytes. Throws `StatusError`: RESOURCE_EXHAUSTED for one that
   * is announced as too large or comes in too many small pieces, UNIMPLEMENTED for a compressed one.
   */
  push(bytes: Buffer): Buffer[] {
    const messages: Buffer[] = [];
    let at = 0;
    while (at < bytes.length) {
      if (this.#message === undefined) {
        at += this.#takeHeader(bytes, at);
      }
      if (this.#message !== undefined) {
        at += this.#takeMessage(bytes, at);
        if (this.#length === this.#messageBytes) {
          messages.push(this.#message.subarray(0, this.#messageBytes));
          this.#message = undefined;
        }
      }
    }
    return messages;
  }

  #takeHeader(bytes: Buffer, at: number): number {
    const taken = bytes.copy(this.#header, this.#headerLength, at);
    this.#headerLength += taken;
    if (this.#headerLength === headerBytes) {
      this.#headerLength = 0;
      this.#pieces = 0;
      this.#begin(this.#header[0] ?? 0, this.#header.readUInt32BE(1));
    }
    return taken;
  }

  #begin(compressed: number, size: number): void {
    if (size > this.#maxMessageBytes) {
      throw new StatusError(
        "RESOURCE_EXHAUSTED",
        `received a message of ${size} bytes; at most ${this.#maxMessageBytes} are allowed`,
      );
    }
    if (this.#keepsHeaders) {
      this.#messageBytes = size + headerBytes;
      this.#length = headerBytes;
      this.#message = Buffer.from(this.#header);
      return;
    }
    if (compressed !== 0) {
      // A few bytes can become megabytes, so whoever takes compressed messages needs a second bound.
      throw new StatusError(
        "UNIMPLEMENTED",
        "received a compressed message; this server takes only grpc-encoding: identity",
      );
    }
    this.#messageBytes = size;
    this.#length = 0;
    this.#message = empty;
  }

  #takeMessage(bytes: Buffer, at: number): number {
    const taken = Math.min(bytes.length - at, this.#messageBytes - this.#length);
    const needed = this.#length + taken;
    let message = this.#message ?? empty;
    if (needed > message.length) {
      const grown = Buffer.allocUnsafe(
        Math.min(this.#messageBytes, Math.max(needed, message.length * 2)),
      );
      message.copy(grown, 0, 0, this.#length);
      message = grown;
      this.#message = message;
    }
    bytes.copy(message, this.#length, at, at + taken);
    this.#length = needed;
    this.#pieces += taken > 0 ? 1 : 0;
    if (this.#pieces > maxSmallPieces && needed < this.#pieces * minPieceBytes) {
      throw new StatusError(
        "RESOURCE_EXHAUSTED",
        `received ${needed} bytes of a message in ${this.#pieces} pieces; at least ${minPieceBytes} bytes a piece are expected after ${maxSmallPieces} of them`,
      );
    }
    return taken;
  }
}
