/**
 * Runs a handler for each call, answers with what it returns, yields or throws, and knows which
 * calls are running, so that a server can stop without leaving one of them without a status.
 */

import type { DescMethod } from "@bufbuild/protobuf";
import type {
  ServerDuplexStream,
  ServerUnaryCall,
  sendUnaryData,
  UntypedHandleCall,
} from "@grpc/grpc-js";
import { systemClock } from "../clock.ts";
import { messageOf, StatusError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { decode, encode } from "./definition.ts";
import { halfClosed } from "./half-close.ts";
import type { UntypedHandler } from "./handlers.ts";
import { deadlineSlackMs } from "./options.ts";
import { toWireStatus } from "./status.ts";
import { receive, send } from "./stream.ts";

/** A call of any of the four shapes: `request` is there when it has a single request. */
type AnyCall = ServerDuplexStream<Buffer, Buffer> &
  Partial<Pick<ServerUnaryCall<Buffer, Buffer>, "request">>;

interface RunningCall {
  /** Resolves when the handler has returned and its `finally` has run. */
  readonly finished: Promise<void>;
  /** Whether it has one answer, and so an end in sight. */
  readonly isFinite: boolean;
  /** Ends the call with `reason` at once, whatever the handler does. */
  abort(reason: StatusError): void;
}

export class RunningCalls {
  readonly #running = new Set<RunningCall>();
  readonly #log: Logger;

  constructor({ log }: { log: Logger }) {
    this.#log = log;
  }

  /**
   * Ends calls with `reason`: all, or those that stream their answers, since nobody knows how long
   * such a call would go on.
   */
  abort(which: "streaming" | "all", reason: StatusError): void {
    for (const call of this.#running) {
      if (which === "all" || !call.isFinite) {
        call.abort(reason);
      }
    }
  }

  /** Resolves when every call that runs now has finished. */
  async idle(): Promise<void> {
    await Promise.all(Array.from(this.#running, (call) => call.finished));
  }

  /**
   * The grpc-js handler of `method`. The four shapes of an rpc are two times two: one request or a
   * stream of them, one answer (given to grpc-js's callback) or a stream of them.
   */
  handle(method: DescMethod, handler: UntypedHandler): UntypedHandleCall {
    const { input, output, methodKind } = method;
    const streamsRequests = methodKind === "client_streaming" || methodKind === "bidi_streaming";
    const encodeAnswer = (answer: object) => encode(output, answer);

    return (call: AnyCall, callback?: sendUnaryData<Buffer>) => {
      const gone = new AbortController();
      const { signal } = gone;
      // The first of these ends the call; grpc-js must not be told twice.
      let isOver = false;
      const end = (tellGrpc: () => void) => {
        if (!isOver) {
          isOver = true;
          tellGrpc();
        }
      };
      const fail = (error: unknown) => {
        const status = toWireStatus(error);
        // `destroy(error)` would send no status at all and leave the client hanging.
        end(() => (callback ? callback(status) : call.emit("error", status)));
      };

      const abort = (reason: StatusError) => {
        fail(reason);
        gone.abort(reason);
      };
      const decodeRequest = (bytes: Buffer) => {
        try {
          return decode(input, bytes);
        } catch (error) {
          const malformed = new StatusError("INVALID_ARGUMENT", messageOf(error), { cause: error });
          abort(malformed);
          throw malformed;
        }
      };

      // Also emitted after every proper end; then nobody listens any more.
      call.on("cancelled", () => {
        isOver = true;
        const isLate = Number(call.getDeadline()) <= systemClock.now() + deadlineSlackMs;
        gone.abort(
          isLate
            ? new StatusError("DEADLINE_EXCEEDED", "deadline exceeded")
            : new StatusError("CANCELLED", "client gone"),
        );
      });

      const run = async () => {
        try {
          const request = streamsRequests
            ? receive(call, {
                decode: decodeRequest,
                ended: () => halfClosed(call, { signal }),
                signal,
              })
            : decodeRequest(call.request ?? Buffer.alloc(0));
          const answers = handler(request, {
            signal,
            metadata: call.metadata,
            peer: call.getPeer(),
          });
          if (callback) {
            const answer = encodeAnswer(await (answers as Promise<object>));
            end(() => callback(null, answer));
          } else {
            await send(call, answers as AsyncIterable<object>, { encode: encodeAnswer, signal });
            end(() => call.end());
          }
        } catch (error) {
          // A wait that the signal has ended may reject with an AbortError instead of the reason.
          if (!(error instanceof StatusError) && !(signal.aborted && isAbortError(error))) {
            this.#log.error("handler failed", {
              method: `${method.parent.typeName}/${method.name}`,
              stack: error instanceof Error ? error.stack : String(error),
            });
          }
          fail(error);
        }
      };

      const running: RunningCall = {
        finished: run().finally(() => this.#running.delete(running)),
        isFinite: callback !== undefined,
        abort,
      };
      this.#running.add(running);
    };
  }
}

function isAbortError(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}
