/**
 * HTTP/2 frames over a bare socket, for what node:http2 would not send: frames of one byte, floods of
 * control frames, streams beyond the number that the server allows, windows that never open.
 */

import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { Answers, statusNames } from "./answers.ts";
import { attackerSocket } from "./attacker-socket.ts";
import { untilAborted } from "./patience.ts";
import type { Target } from "./peer.ts";

export const frameTypes = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const flags = { endStream: 1, ack: 1, endHeaders: 4 } as const;

/** The name `grpc-status` in the Huffman code of HPACK, as servers send it. */
const grpcStatusName = Buffer.from("9acac8b21234da8f", "hex");

/** The windows that HTTP/2 begins with, in bytes. */
const initialWindow = 65_535;

const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

export function frameOf(type: number, flag: number, streamId: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flag;
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}

/** Headers in HPACK, as literals that enter no table. */
export function headerBlock(headers: Readonly<Record<string, string>>): Buffer {
  return Buffer.concat(
    Object.entries(headers).flatMap(([name, value]) => [
      Buffer.of(0),
      ...[name, value].flatMap((text) => [integer(text.length), Buffer.from(text, "latin1")]),
    ]),
  );
}

/** An integer of HPACK with a prefix of seven bits. */
function integer(n: number): Buffer {
  if (n < 127) {
    return Buffer.of(n);
  }
  const bytes = [127];
  let rest = n - 127;
  for (; rest >= 128; rest = Math.floor(rest / 128)) {
    bytes.push((rest % 128) + 128);
  }
  return Buffer.from([...bytes, rest]);
}

export const grpcHeaders = (path: string, more: Readonly<Record<string, string>> = {}) => ({
  ":method": "POST",
  ":scheme": "http",
  ":authority": "localhost",
  ":path": path,
  "content-type": "application/grpc",
  te: "trailers",
  ...more,
});

export class Wire implements Disposable {
  readonly socket: Socket;
  /** What the server said: statuses, resets, GOAWAY and how the connection ended. */
  readonly answers = new Answers();
  readonly #windows = new Map<number, number>([[0, initialWindow]]);
  #streamWindow = initialWindow;
  #unread: Buffer<ArrayBufferLike> = Buffer.alloc(0);
  #wake = () => {};

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on("error", (error) => this.#note(String((error as NodeJS.ErrnoException).code)));
    socket.on("close", () => {
      this.#note("connection closed");
      this.#wake();
    });
    socket.on("data", (chunk) => this.#read(chunk));
  }

  /** Connects, and greets as HTTP/2 clients do unless it is told not to. */
  static async dial({ port }: Target, { greets = true } = {}): Promise<Wire> {
    const socket = connect(attackerSocket(port));
    const wire = new Wire(socket);
    if (greets) {
      // A header table of size 0: the server's headers are literals.
      const settings = Buffer.of(0, 1, 0, 0, 0, 0);
      socket.write(Buffer.concat([preface, frameOf(frameTypes.settings, 0, 0, settings)]));
    }
    await Promise.race([once(socket, "connect"), once(socket, "close")]).catch(() => {});
    return wire;
  }

  get isOpen(): boolean {
    return !this.socket.destroyed && this.socket.writable;
  }

  /** Writes bytes as they are, and waits while the server takes no more. */
  async write(bytes: Uint8Array, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    if (this.isOpen && !this.socket.write(bytes)) {
      await untilAborted(
        new Promise<void>((resolve) => {
          this.socket.once("drain", resolve);
          this.socket.once("close", resolve);
        }),
        signal,
      );
    }
  }

  /**
   * Sends bytes as DATA frames of `frameBytes` each within the windows that the server grants. Returns
   * how many bytes of them were sent when the server, or the signal, ended it.
   */
  async sendData(
    streamId: number,
    bytes: Uint8Array,
    { frameBytes, signal }: { readonly frameBytes: number; readonly signal: AbortSignal },
  ): Promise<number> {
    let sent = 0;
    while (sent < bytes.length && this.isOpen && !signal.aborted) {
      const ofStream = this.#windows.get(streamId) ?? this.#streamWindow;
      const ofConnection = this.#windows.get(0) ?? 0;
      const room = Math.min(ofStream, ofConnection, 16_384, bytes.length - sent);
      if (room <= 0) {
        const woken = new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        await untilAborted(woken, signal);
        continue;
      }
      const frames: Buffer[] = [];
      for (let at = sent; at < sent + room; at += frameBytes) {
        const end = Math.min(at + frameBytes, sent + room);
        frames.push(frameOf(frameTypes.data, 0, streamId, bytes.subarray(at, end)));
      }
      sent += room;
      this.#windows.set(streamId, ofStream - room);
      this.#windows.set(0, ofConnection - room);
      await this.write(Buffer.concat(frames), { signal });
    }
    return sent;
  }

  #read(chunk: Buffer): void {
    this.#unread = this.#unread.length === 0 ? chunk : Buffer.concat([this.#unread, chunk]);
    while (this.#unread.length >= 9) {
      const length = this.#unread.readUIntBE(0, 3);
      if (this.#unread.length < 9 + length) {
        return;
      }
      const payload = this.#unread.subarray(9, 9 + length);
      const streamId = this.#unread.readUInt32BE(5);
      this.#take(this.#unread[3] ?? 0, this.#unread[4] ?? 0, streamId, payload);
      this.#unread = this.#unread.subarray(9 + length);
    }
  }

  #take(type: number, flag: number, streamId: number, payload: Buffer): void {
    switch (type) {
      case frameTypes.headers:
        this.#takeStatus(payload);
        break;
      case frameTypes.reset:
        this.#note(`RST_STREAM ${payload.readUInt32BE(0)}`);
        // Nothing more can be sent on it.
        this.#windows.set(streamId, 0);
        break;
      case frameTypes.goaway:
        this.#note(`GOAWAY ${payload.readUInt32BE(4)}`);
        break;
      case frameTypes.settings:
        if ((flag & flags.ack) === 0) {
          this.#takeSettings(payload);
          this.socket.write(frameOf(frameTypes.settings, flags.ack, 0, Buffer.alloc(0)));
        }
        break;
      case frameTypes.windowUpdate: {
        const before = this.#windows.get(streamId) ?? this.#streamWindow;
        this.#windows.set(streamId, before + payload.readUInt32BE(0));
        this.#wake();
        break;
      }
    }
  }

  #takeSettings(payload: Buffer): void {
    for (let at = 0; at + 6 <= payload.length; at += 6) {
      if (payload.readUInt16BE(at) === 4) {
        const window = payload.readUInt32BE(at + 2);
        for (const [streamId, left] of this.#windows) {
          if (streamId !== 0) {
            this.#windows.set(streamId, left + window - this.#streamWindow);
          }
        }
        this.#streamWindow = window;
        this.#wake();
      }
    }
  }

  #takeStatus(block: Buffer): void {
    const at = block.indexOf(grpcStatusName);
    if (at >= 0) {
      const start = at + grpcStatusName.length;
      const length = block[start] ?? 0;
      const code = block.subarray(start + 1, start + 1 + length).toString("latin1");
      this.#note(statusNames[Number(code)] ?? `grpc-status ${code}`);
    }
  }

  #note(kind: string): void {
    this.answers.add({ kind, message: "" });
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}
