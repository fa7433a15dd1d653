/** A wait for a source that a signal can end, where the source itself does not know the signal. */

/**
 * Yields what `source` yields until the signal aborts, and then throws its reason. The read that is
 * under way at that moment is left alone: whoever owns the source ends it.
 */
export async function* interruptible<T>(
  source: AsyncIterable<T>,
  { signal }: { readonly signal: AbortSignal },
): AsyncGenerator<T, void> {
  const iterator = source[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await nextOf(iterator, { signal });
      if (next.done) {
        return;
      }
      yield next.value;
    }
  } finally {
    // Not awaited: a read that is under way ends by its source's own signal.
    iterator.return?.().catch(() => {});
  }
}

/** What the iterator has next; rejects with the signal's reason when that aborts first. */
export function nextOf<T>(
  iterator: AsyncIterator<T>,
  { signal }: { readonly signal: AbortSignal },
): Promise<IteratorResult<T>> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    iterator
      .next()
      .then(resolve, reject)
      .finally(() => signal.removeEventListener("abort", onAbort));
  });
}
