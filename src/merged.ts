/** Several sources, one loop. */

/**
 * What the sources yield, as it comes. Each is asked for its next item only when the one before has
 * been handled. Ends when all have ended, and with what the first of them throws; then the others are
 * closed. Whoever owns the sources ends their waits by their own signals.
 */
export async function* merged<T>(...sources: readonly AsyncIterable<T>[]): AsyncGenerator<T, void> {
  const iterators = sources.map((source) => source[Symbol.asyncIterator]());
  const ask = (iterator: AsyncIterator<T>) =>
    iterator.next().then((result) => ({ iterator, result }));
  const asked = new Map(iterators.map((iterator) => [iterator, ask(iterator)]));
  try {
    while (asked.size > 0) {
      const { iterator, result } = await Promise.race(asked.values());
      if (result.done) {
        asked.delete(iterator);
      } else {
        yield result.value;
        asked.set(iterator, ask(iterator));
      }
    }
  } finally {
    for (const iterator of iterators) {
      // Not awaited: a read that is under way ends by its source's own signal.
      iterator.return?.().catch(() => {});
    }
    for (const next of asked.values()) {
      next.catch(() => {});
    }
  }
}
