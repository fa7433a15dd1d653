/**
 * What a store's event is, and which ones are refused. The store checks before it records, with
 * tighter bounds than the cloud, so that what it has recorded can be delivered.
 */

export interface StoreEvent {
  readonly eventId: string;
  readonly type: string;
  readonly payload: string;
  /** Unix milliseconds of when it happened, by the store's clock. */
  readonly timestamp: number;
}

/** Of ids, types and the like, in bytes of UTF-8. */
export const maxNameBytes = 128;

/** Of a payload, in bytes of UTF-8: what a store records. */
export const maxRecordedPayloadBytes = 1024 * 1024;

/** What the cloud takes: more, and well below the 4 MiB of a gRPC message. */
export const maxTakenPayloadBytes = 2 * 1024 * 1024;

/** The last millisecond of the year 9999, the end of what RFC 3339 can write; Unix milliseconds. */
export const maxTimestamp = 253_402_300_799_999;

/**
 * The longest reason, alarm or other text for people that is kept, printed or logged, in characters.
 * The contract says so of what a peer of ours sends; the text of any other peer is cut to it.
 */
export const maxTextLength = 1024;

/** What is wrong with an event, in words that name the field; undefined if nothing is. */
export function faultOfEvent(
  { eventId, type, payload, timestamp }: StoreEvent,
  maxPayloadBytes: number,
): string | undefined {
  return (
    faultOfName("event_id", eventId) ??
    faultOfName("type", type) ??
    faultOfText("payload", payload, maxPayloadBytes) ??
    (Number.isSafeInteger(timestamp) && timestamp >= 0 && timestamp <= maxTimestamp
      ? undefined
      : `timestamp is ${timestamp}; expected Unix milliseconds from 1970 to 9999`)
  );
}

/** The same for an id or a type. */
export function faultOfName(field: string, name: string): string | undefined {
  if (name === "") {
    return `${field} is empty`;
  }
  const fault = faultOfText(field, name, maxNameBytes);
  if (fault !== undefined) {
    return fault;
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  return /[\u0000-\u001f\u007f-\u009f]/.test(name) ? `${field} has control characters` : undefined;
}

function faultOfText(field: string, text: string, maxBytes: number): string | undefined {
  // A character of UTF-16 takes at most three bytes of UTF-8.
  if (text.length * 3 > maxBytes) {
    const bytes = Buffer.byteLength(text);
    if (bytes > maxBytes) {
      return `${field} has ${bytes} bytes; at most ${maxBytes} are allowed`;
    }
  }
  return text.isWellFormed() ? undefined : `${field} is not valid Unicode: half a surrogate pair`;
}
