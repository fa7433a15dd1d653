/**
 * Checksums of events, by which each reader notices bits that have flipped on a disk or on the wire.
 * They detect accidents and prove nothing against an attacker. docs/decisions/event-checksums.md says
 * why they are CRC-32 and what they cover.
 */

import { crc32 } from "node:zlib";
import type { StoreEvent } from "./store-event.ts";

/** An event with its checksum, which is undefined if the event was recorded by an older version. */
export interface ChecksummedEvent extends StoreEvent {
  /** The result of `checksumOf` when the event was recorded. */
  readonly checksum: number | undefined;
}

/** Where an event comes from, as a message of the wire says. */
export interface EventOrigin {
  readonly storeId: string;
  readonly epoch: string;
  readonly seq: number;
}

/**
 * Returns the CRC-32 of event_id, type, payload and timestamp: the UTF-8 of the four with a NUL between
 * each two, the timestamp in decimal digits, or empty if a till leaves it out. No other valid event has
 * the same bytes: neither an id nor a type can have a NUL, and a payload with one lies between the
 * second and the last.
 */
export function checksumOf({
  eventId,
  type,
  payload,
  timestamp,
}: Omit<StoreEvent, "timestamp"> & { readonly timestamp: number | undefined }): number {
  return crc32(checkedText({ eventId, type, payload, timestamp }));
}

/** Returns the text that `checksumOf` sums up. */
export function checkedText({
  eventId,
  type,
  payload,
  timestamp = "",
}: Omit<StoreEvent, "timestamp"> & { readonly timestamp: number | string | undefined }): string {
  // One string and one call: a second call would cost more than to copy a payload of 200 bytes.
  return `${eventId}\0${type}\0${payload}\0${timestamp}`;
}

/**
 * Continues an event's own checksum over where it comes from: a NUL before each of store_id, epoch and
 * seq. So a message carries what was computed at recording, and a change that the event suffered at
 * any place since then is still noticed.
 */
export function messageChecksum(checksum: number, { storeId, epoch, seq }: EventOrigin): number {
  return crc32(`\0${storeId}\0${epoch}\0${seq}`, checksum);
}

/** What decides what becomes of events, in an answer for each or for a bundle: an EventAck. */
export interface CheckedAck {
  readonly eventId: string;
  readonly ok: boolean;
  readonly duplicate: boolean;
  readonly retryable: boolean;
  readonly retryAfterMs: number;
  readonly code: number;
  readonly also: readonly string[];
}

/** Returns the CRC-32 of an answer: its fields in this order, with a NUL between each two. */
export function ackChecksum({
  eventId,
  ok,
  duplicate,
  retryable,
  retryAfterMs,
  code,
  also,
}: CheckedAck): number {
  const fields = [eventId, Number(ok), Number(duplicate), Number(retryable), retryAfterMs, code];
  return crc32([...fields, ...also].join("\0"));
}

/** What decides what becomes of a batch: an UploadSummary. */
export interface CheckedSummary {
  readonly accepted: number;
  readonly rejected: number;
  readonly duplicates: number;
  readonly refused: number;
  readonly refusals: readonly {
    readonly eventId: string;
    readonly code: number;
    readonly retryable: boolean;
  }[];
}

/** Returns the CRC-32 of a summary: its counts and each refusal, with a NUL between each two fields. */
export function summaryChecksum({
  accepted,
  rejected,
  duplicates,
  refused,
  refusals,
}: CheckedSummary): number {
  const named = refusals.flatMap(({ eventId, code, retryable }) => [
    ...[eventId, code, Number(retryable)],
  ]);
  return crc32([accepted, rejected, duplicates, refused, ...named].join("\0"));
}

/** Returns whether an event is not as it was recorded. One without a checksum is believed. */
export function isCorrupt(event: ChecksummedEvent): boolean {
  return event.checksum !== undefined && event.checksum !== checksumOf(event);
}
