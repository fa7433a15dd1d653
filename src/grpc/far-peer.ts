/**
 * Gives a peer that is far away a wider flow-control window. A peer may have one window on its way at a
 * time, so with HTTP/2's default of 64 KiB and a round trip of four seconds a store that comes back
 * sends 16 KiB a second on any line.
 *
 * A peer that is near, or on a slow line, keeps the default: there a full window already takes as long
 * as anyone should wait for what is sent after it.
 */

import type { Http2Session } from "node:http2";
import { systemClock } from "../clock.ts";
import { roundTrip } from "./round-trip.ts";

/** A round trip is long from so many milliseconds on. */
const farMs = 1_000;

/** The window of such a connection and of each of its streams, in bytes. */
const wideWindow = 512 * 1024;

/** How many connections have one at a time, which bounds the memory that all windows take: 64 MiB. */
const maxWide = 128;

let wide = 0;

/**
 * Is to be called with the first call of a connection, and how long that took to come, in milliseconds.
 *
 * A client can make its first call one round trip after it has connected, so one that is quick is not
 * far. One that is not may just have waited, and answers a PING at once; on a slow line the answer may
 * be late as well, since it waits for what the client has sent before. Only both together mean: far.
 */
export async function widenIfFar(
  session: Http2Session | undefined,
  firstCallMs: number,
): Promise<void> {
  if (session === undefined || firstCallMs < farMs) {
    return;
  }
  const began = systemClock.monotonic();
  const isAnswered = await roundTrip(session);
  const isFar = systemClock.monotonic() - began >= farMs;
  if (!isAnswered || !isFar || session.destroyed || wide >= maxWide) {
    return;
  }
  wide += 1;
  session.once("close", () => {
    wide -= 1;
  });
  session.settings({ initialWindowSize: wideWindow });
  session.setLocalWindowSize(wideWindow);
}
