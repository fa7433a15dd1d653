/**
 * A peer over node:http2, without grpc-js, for calls that no decent client would make. It tolerates
 * every refusal and reports each as data.
 */

import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
  type Settings,
} from "node:http2";
import { connect as connectSocket } from "node:net";
import {
  create,
  type DescMethod,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { frame } from "../raw-call.ts";
import { type Answer, Answers, statusNames, unanswered } from "./answers.ts";
import { attackerSocket } from "./attacker-socket.ts";
import { untilAborted } from "./patience.ts";

/** A server that listens on loopback. */
export interface Target {
  readonly port: number;
}

export interface AttackOptions {
  /** Is called when everything has been sent; what was opened stays open after that. */
  readonly onSent?: (() => void) | undefined;
  /** Ends the attack: it lets go of everything and reports what had been answered until then. */
  readonly signal: AbortSignal;
}

export interface PeerCall {
  /** Undefined if there was no connection to open it on. */
  readonly stream: ClientHttp2Stream | undefined;
  /** Resolves with how the call ended. Never rejects. */
  readonly ended: Promise<Answer>;
  /** Writes bytes and waits until they have left, or until the call is over. */
  send(bytes: Uint8Array): Promise<void>;
}

export interface OpenOptions {
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  /** A peer that does not read its answers leaves them in the server's buffers. */
  readonly reads?: boolean;
  /** Is sent at once and half-closes the call. */
  readonly body?: Uint8Array;
}

/** The path of a method, as HTTP/2 has it. */
export const pathOf = (method: DescMethod, typeName = method.parent.typeName) =>
  `/${typeName}/${method.name}`;

/** A request in its gRPC frame. */
export function requestOf<M extends DescMethod>(
  { input }: M,
  init: MessageInitShape<M["input"]>,
): Buffer {
  const message: MessageShape<M["input"]> = create<M["input"]>(input, init);
  return frame(toBinary<M["input"]>(input, message));
}

/** One connection at a time. It dials again when the server has closed the last one. */
export class Peer implements Disposable {
  readonly #port: number;
  readonly #settings: Settings;
  #session: ClientHttp2Session | undefined;
  #dialsLeft: number;
  #lost = "";

  constructor(
    { port }: Target,
    { settings = {}, maxDials = 10 }: { settings?: Settings; maxDials?: number } = {},
  ) {
    this.#port = port;
    this.#settings = settings;
    this.#dialsLeft = maxDials;
  }

  open(method: DescMethod, options: OpenOptions = {}): PeerCall {
    return this.openPath(pathOf(method), options);
  }

  openPath(path: string, { headers = {}, reads = true, body }: OpenOptions = {}): PeerCall {
    const session = this.#dialled();
    let stream: ClientHttp2Stream | undefined;
    try {
      stream = session?.request({
        ":method": "POST",
        ":path": path,
        "content-type": "application/grpc",
        te: "trailers",
        ...(headers as Record<string, string>),
      });
    } catch (error) {
      // The server sent a GOAWAY, or closed the connection, a moment ago.
      this.#lost = codeOf(error);
    }
    if (stream === undefined) {
      const ended = Promise.resolve({ kind: this.#lost, message: "" });
      return { stream, ended, send: async () => {} };
    }
    const call = { stream, ended: answerOf(stream, () => this.#lost), send: sender(stream) };
    if (reads) {
      stream.resume();
    }
    if (body !== undefined) {
      stream.end(body);
    }
    return call;
  }

  /** Makes a call with one request and waits for its answer. */
  async call<M extends DescMethod>(
    method: M,
    init: MessageInitShape<M["input"]>,
    options: OpenOptions = {},
  ): Promise<Answer> {
    return await this.open(method, { body: requestOf(method, init), ...options }).ended;
  }

  #dialled(): ClientHttp2Session | undefined {
    if (this.#session !== undefined && !this.#session.closed && !this.#session.destroyed) {
      return this.#session;
    }
    if (this.#dialsLeft === 0) {
      return undefined;
    }
    this.#dialsLeft -= 1;
    this.#lost = "connection closed";
    const session = connect(`http://127.0.0.1:${this.#port}`, {
      createConnection: () => connectSocket(attackerSocket(this.#port)),
      settings: this.#settings,
      // The bound on what a session may hold is for the attacked side, and not for the attacker.
      maxSessionMemory: 4_096,
    });
    session.setMaxListeners(0);
    session.on("error", (error) => {
      this.#lost = codeOf(error);
    });
    session.on("goaway", (code) => {
      this.#lost = `GOAWAY ${code}`;
    });
    this.#session = session;
    return session;
  }

  /** Waits until the server has seen everything that was sent so far; resolves at once without a connection. */
  async seen({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    const session = this.#session;
    if (session !== undefined && !session.closed && !session.destroyed) {
      const pong = new Promise<void>((resolve) => {
        session.once("close", resolve);
        session.ping(() => resolve());
      });
      await untilAborted(pong, signal);
    }
  }

  [Symbol.dispose](): void {
    this.#session?.destroy();
  }
}

/** Waits for all calls to end, or for the signal; those without an answer are counted as such. */
export async function gather(
  calls: readonly PeerCall[],
  { signal }: { readonly signal: AbortSignal },
): Promise<Answers> {
  const answers = new Answers();
  const none: Answer = { kind: unanswered, message: "" };
  const over = untilAborted(new Promise<never>(() => {}), signal).then(() => none);
  await Promise.all(calls.map(async ({ ended }) => answers.add(await Promise.race([ended, over]))));
  return answers;
}

function answerOf(stream: ClientHttp2Stream, lost: () => string): Promise<Answer> {
  const seen: IncomingHttpHeaders = {};
  stream.on("error", () => {});
  stream.on("response", (headers) => Object.assign(seen, headers));
  return new Promise((resolve) => {
    const resolveWithStatus = () => {
      const code = seen["grpc-status"];
      if (code !== undefined) {
        const message = textOf(String(seen["grpc-message"] ?? ""));
        resolve({ kind: statusNames[Number(code)] ?? `grpc-status ${code}`, message });
      }
    };
    stream.on("trailers", (trailers) => {
      Object.assign(seen, trailers);
      // A stream that is not read may never close.
      resolveWithStatus();
    });
    stream.on("close", () => {
      resolveWithStatus();
      const { rstCode = 0 } = stream;
      const status = seen[":status"];
      resolve({
        kind:
          rstCode !== 0 && rstCode !== constants.NGHTTP2_CANCEL
            ? `RST_STREAM ${rstCode}`
            : status !== undefined && Number(status) !== 200
              ? `HTTP ${status}`
              : lost(),
        message: "",
      });
    });
  });
}

function sender(stream: ClientHttp2Stream): PeerCall["send"] {
  // A peer may have any number of writes under way.
  stream.setMaxListeners(0);
  return (bytes) =>
    new Promise((resolve) => {
      if (stream.destroyed || stream.closed || stream.writableEnded) {
        resolve();
        return;
      }
      const done = () => {
        stream.off("close", done);
        resolve();
      };
      stream.once("close", done);
      stream.write(bytes, done);
    });
}

function codeOf(error: unknown): string {
  return String((error as NodeJS.ErrnoException).code ?? error);
}

/** A message of gRPC is percent-encoded; one that is not is kept as it came. */
function textOf(encoded: string): string {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return encoded;
  }
}
