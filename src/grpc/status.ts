/** `StatusError` to the wire and back. */

import { Metadata, type ServiceError, type StatusObject } from "@grpc/grpc-js";
import { type StatusCode, StatusError, statusCodes } from "../errors.ts";

const codeNames = new Map<number, StatusCode>(
  Object.entries(statusCodes).map(([name, number]) => [number, name as StatusCode]),
);

/**
 * A status message travels in a header, and peers refuse headers that are too long together with
 * the status they carry. In UTF-16 units, before grpc-js percent-encodes it.
 */
const maxDetailsLength = 1024;

/** What a peer learns of a fault of ours: nothing. The log has the stack. */
export const internalDetails = "internal error; the server's log has the details";

/**
 * The status that ends a call in which `thrown` was thrown: a `StatusError` keeps its code and
 * message, anything else is a fault of ours and becomes INTERNAL with a generic text.
 */
export function toWireStatus(thrown: unknown): StatusObject {
  const [code, details] =
    thrown instanceof StatusError
      ? [statusCodes[thrown.code], thrown.message]
      : [statusCodes.INTERNAL, internalDetails];
  return { code, details: headerText(details), metadata: new Metadata() };
}

/** The error of a call that the peer, or grpc-js on its behalf, ended with `status`. */
export function fromWireStatus(status: Pick<ServiceError, "code" | "details">): StatusError {
  const { code, message } = readWireStatus(status);
  // OK reaches this only if a peer breaks the protocol, such as by sending no message where one is due.
  return new StatusError(code === "OK" ? "INTERNAL" : code, message);
}

/** A code that gRPC does not know is UNKNOWN, as it says, and the number goes into the message. */
export function readWireStatus({ code, details }: Pick<ServiceError, "code" | "details">): {
  readonly code: StatusCode;
  readonly message: string;
} {
  const name = codeNames.get(code);
  return name === undefined
    ? { code: "UNKNOWN", message: headerText(`status ${code}${details && ": "}${details}`) }
    : { code: name, message: headerText(details) };
}

/** Cut to length, and without half a surrogate pair, on which percent-encoding throws. */
function headerText(text: string): string {
  const cut = text.length > maxDetailsLength ? `${text.slice(0, maxDetailsLength - 1)}…` : text;
  return cut.toWellFormed();
}
