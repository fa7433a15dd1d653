/** A gRPC call made by hand over HTTP/2, for what no decent client would send. */

import { once } from "node:events";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  type IncomingHttpHeaders,
} from "node:http2";

export interface RawAnswer {
  readonly httpStatus: number | undefined;
  /** `grpc-status`; undefined if none came. */
  readonly code: number | undefined;
  readonly message: string;
  readonly body: Buffer;
}

export interface RawClient extends AsyncDisposable {
  readonly session: ClientHttp2Session;
  /** Opens a stream; nothing is sent on it but its headers. */
  open(path: string, headers?: Record<string, string>): ClientHttp2Stream;
  /** Sends this, half-closes, and reads the answer. */
  call(path: string, body: Uint8Array, headers?: Record<string, string>): Promise<RawAnswer>;
}

/** The five bytes before each message: whether it is compressed, and how long it is. */
export function frame(message: Uint8Array, { flag = 0, length = message.length } = {}): Buffer {
  const head = Buffer.alloc(5);
  head[0] = flag;
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, message]);
}

export function rawClient(port: number): RawClient {
  const session = connect(`http://127.0.0.1:${port}`);
  session.on("error", () => {});
  const open: RawClient["open"] = (path, headers = {}) => {
    const stream = session.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
      ...headers,
    });
    stream.on("error", () => {});
    return stream;
  };
  return {
    session,
    open,
    async call(path, body, headers) {
      const stream = open(path, headers);
      const seen: IncomingHttpHeaders = {};
      stream.on("response", (headers) => Object.assign(seen, headers));
      stream.on("trailers", (trailers) => Object.assign(seen, trailers));
      const chunks: Buffer[] = [];
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.end(body);
      await once(stream, "close");
      const code = seen["grpc-status"];
      return {
        httpStatus: seen[":status"] as number | undefined,
        code: code === undefined ? undefined : Number(code),
        message: decodeURIComponent(String(seen["grpc-message"] ?? "")),
        body: Buffer.concat(chunks),
      };
    },
    async [Symbol.asyncDispose]() {
      if (!session.destroyed) {
        session.destroy();
        await once(session, "close");
      }
    },
  };
}
