/** Several sources, one loop. */

type Come<T> =
  | { readonly iterator: AsyncIterator<T>; readonly result: IteratorResult<T> }
  | { readonly error: unknown };

/**
 * What the sources yield, as it comes. Each is asked for its next item only when the one before has
 * been handled. Ends when all have ended, and with what the first of them throws; then the others are
 * closed. Whoever owns the sources ends their waits by their own signals.
 */
export async function* merged<T>(...sources: readonly AsyncIterable<T>[]): AsyncGenerator<T, void> {
  const iterators = sources.map((source) => source[Symbol.asyncIterator]());
  const come: Come<T>[] = [];
  let wake = () => {};
  // Each read is listened to once. A race at every item would leave all of them, items included, in
  // the memory of a source that has nothing to say for days.
  const ask = (iterator: AsyncIterator<T>) =>
    iterator.next().then(
      (result) => {
        come.push({ iterator, result });
        wake();
      },
      (error) => {
        come.push({ error });
        wake();
      },
    );
  iterators.forEach(ask);
  let open = iterators.length;
  try {
    while (open > 0) {
      const next = come.shift();
      if (next === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      } else if ("error" in next) {
        throw next.error;
      } else if (next.result.done) {
        open -= 1;
      } else {
        yield next.result.value;
        ask(next.iterator);
      }
    }
  } finally {
    for (const iterator of iterators) {
      // Not awaited: a read that is under way ends by its source's own signal.
      iterator.return?.().catch(() => {});
    }
  }
}
