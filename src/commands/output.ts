/** What a server sent, as lines of data. */

import { type DescMessage, type MessageShape, toJsonString } from "@bufbuild/protobuf";
import { messageOf, StatusError } from "../errors.ts";
import { plain } from "../plain.ts";

/**
 * A line of NDJSON: ProtoJSON with default values included. Throws `StatusError` for a message that
 * has no such form, such as one with a time outside of the years 1 to 9999.
 */
export function ndjson<M extends DescMessage>(schema: M, message: MessageShape<M>): string {
  // JSON leaves some characters as they are that terminals obey. Spelled out it is the same JSON.
  return plain(printable(() => toJsonString(schema, message, { alwaysEmitImplicit: true })));
}

/** What `print` returns; what it throws is the fault of whoever sent the message, not ours. */
export function printable(print: () => string): string {
  try {
    return print();
  } catch (error) {
    const why = messageOf(error);
    throw new StatusError("DATA_LOSS", `the server sent what cannot be printed: ${why}`);
  }
}
