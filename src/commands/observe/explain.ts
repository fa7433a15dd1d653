/**
 * `--explain`: a sentence for each event of a call, in the words of HTTP/2 and gRPC. What happens
 * for the first time is explained, after that it is only named.
 */

import { formatBrief } from "../../duration.ts";
import { statusCodes } from "../../errors.ts";
import type { CallEvent } from "../../grpc/call-events.ts";
import type { CallShape } from "./index.ts";

export class Explainer {
  readonly #shape: CallShape;
  readonly #seen = new Set<CallEvent["kind"]>();
  #sent = 0;
  #received = 0;
  #blockedAt = 0;
  #hasCancelled = false;

  constructor(shape: CallShape) {
    this.#shape = shape;
  }

  /** The sentence, behind an arrow: to the server, from the server, or neither. */
  explain(event: CallEvent, ms: number): string {
    const isFirst = !this.#seen.has(event.kind);
    this.#seen.add(event.kind);
    const at = ms < 1000 ? `${ms.toFixed(1)} ms` : formatBrief(ms);
    return `${at.padStart(8)} ${this.#sentence(event, ms, isFirst)}`;
  }

  #sentence(event: CallEvent, ms: number, isFirst: boolean): string {
    switch (event.kind) {
      case "requested": {
        this.#hasCancelled = false;
        const limit =
          event.deadline === undefined ? "" : " The deadline goes along, as grpc-timeout.";
        return `→ HEADERS: POST ${event.path} opens a stream of its own on the HTTP/2 connection.${limit}`;
      }
      case "sent": {
        this.#sent += 1;
        const message = `→ DATA: message ${this.#sent}, ${event.bytes} bytes`;
        return isFirst
          ? `${message} of protobuf behind 5 bytes of gRPC's: whether it is compressed, and its length.`
          : `${message}.`;
      }
      case "blocked":
        this.#blockedAt = ms;
        return isFirst
          ? "  write() answered false: the connection takes no more now, because the server has not read what it was sent (its flow-control window is full) or the socket is busy. We stop, and that is backpressure."
          : "  write() answered false: we wait.";
      case "unblocked":
        return `  drain, after ${formatBrief(ms - this.#blockedAt)}: ${isFirst ? "what waited in our buffer has left, and we go on." : "we go on."}`;
      case "half-closed":
        return this.#shape === "server_streaming"
          ? "→ END_STREAM: half-close. The one request was all we had to say; our direction is closed, the server's is open."
          : "→ END_STREAM: half-close. That was our last message; our direction is closed, the server's is open.";
      case "cancelled":
        this.#hasCancelled = true;
        return "→ RST_STREAM: we cancel. Both directions end here, without a status from the server.";
      case "accepted":
        return "← HEADERS: the server answers. That promises nothing yet: gRPC's own status comes last.";
      case "received": {
        this.#received += 1;
        const message = `← DATA: message ${this.#received}, ${event.bytes} bytes`;
        return isFirst && this.#sent > 1
          ? `${message}, while our own direction ${this.#seen.has("half-closed") ? "is closed already" : "is still open"}.`
          : `${message}.`;
      }
      case "ended":
        return this.#ending(event);
      default:
        return event satisfies never;
    }
  }

  #ending({ code, message }: CallEvent & { kind: "ended" }): string {
    const status = `${statusCodes[code]} ${code}`;
    if (this.#hasCancelled) {
      return `  The call ends with ${status}, which is our own word for it.`;
    }
    if (code === "OK") {
      return `← HEADERS, the trailers: grpc-status ${status}. Now both directions are closed.`;
    }
    if (code === "DEADLINE_EXCEEDED") {
      return `  The call ends with ${status}: its time is over. Both sides had counted it, each for itself.`;
    }
    return `  The call ends with ${status}: ${message} (A status comes in the trailers; where none came, our side makes one up.)`;
  }
}

/** How far the further lines of a sentence are indented: as far as its text, after the time and the arrow. */
const indent = " ".repeat(11);

/**
 * Breaks a sentence at its spaces into lines of at most `columns`. A word that is longer stays whole, and
 * the terminal breaks it.
 */
export function wrapSentence(sentence: string, columns: number): string[] {
  const lines: string[] = [];
  let rest = sentence;
  while (rest.length > columns) {
    const lead = lines.length === 0 ? 0 : indent.length;
    const last = rest.lastIndexOf(" ", columns);
    const isBlank = rest.slice(lead, Math.max(lead, last)).trim() === "";
    const at = isBlank ? rest.indexOf(" ", Math.max(columns, lead + 1)) : last;
    if (at === -1) {
      break;
    }
    lines.push(rest.slice(0, at));
    rest = indent + rest.slice(at + 1);
  }
  return [...lines, rest];
}
