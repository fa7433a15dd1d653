/** Waits of an attacker that end with its signal, without an error. */

import { once, setMaxListeners } from "node:events";

/** Resolves with the promise, or when the signal aborts. */
export async function untilAborted(promise: Promise<unknown>, signal: AbortSignal): Promise<void> {
  if (signal.aborted) {
    return;
  }
  setMaxListeners(0, signal);
  const over = new AbortController();
  const aborted = once(signal, "abort", { signal: over.signal }).catch(() => {});
  await Promise.race([promise, aborted]);
  over.abort();
}

/** Runs at most `width` of `count` pieces of work at once, until the signal aborts. */
export async function atOnce(
  width: number,
  count: number,
  work: (i: number) => Promise<void>,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < count && !signal.aborted) {
      const i = next;
      next += 1;
      await untilAborted(work(i), signal);
    }
  };
  await Promise.all(Array.from({ length: Math.min(width, count) }, worker));
}
