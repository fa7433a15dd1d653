/**
 * Reads a source while the consumer is busy with an earlier item, up to a bound. This is the
 * second goroutine of the lesson's Go version: reading goes on while writing waits.
 */

/**
 * Yields what `source` yields, in order. Up to `maxAhead` items are taken from the source before
 * they are asked for; then it is left alone until the consumer catches up, which is how
 * backpressure passes through. An item counts as one, or as `sizeOf` says.
 *
 * When the source ends or throws, the items read before that still come first. Whoever owns the
 * source ends it by its signal: leaving the loop early does not wait for a read that is under way.
 */
export async function* readAhead<T>(
  source: AsyncIterable<T>,
  maxAhead: number,
  sizeOf: (item: T) => number = () => 1,
): AsyncGenerator<T, void> {
  const iterator = source[Symbol.asyncIterator]();
  const queue: T[] = [];
  let size = 0;
  let state: { kind: "reading" } | { kind: "ended" } | { kind: "failed"; error: unknown } = {
    kind: "reading",
  };
  let wakeConsumer = () => {};
  let wakeReader = () => {};
  let isLeft = false;

  const read = async () => {
    try {
      for (;;) {
        // Again and again: a small item that is taken makes no room for a large one.
        while (size >= maxAhead && !isLeft) {
          await new Promise<void>((resolve) => {
            wakeReader = resolve;
          });
        }
        if (isLeft) {
          return;
        }
        const item = await iterator.next();
        if (item.done) {
          state = { kind: "ended" };
          return;
        }
        queue.push(item.value);
        size += sizeOf(item.value);
        wakeConsumer();
      }
    } catch (error) {
      state = { kind: "failed", error };
    } finally {
      wakeConsumer();
    }
  };
  const currentState = () => state;

  read();
  try {
    for (;;) {
      while (queue.length > 0) {
        const item = queue.shift() as T;
        size -= sizeOf(item);
        wakeReader();
        yield item;
      }
      const now = currentState();
      if (now.kind === "ended") {
        return;
      }
      if (now.kind === "failed") {
        throw now.error;
      }
      await new Promise<void>((resolve) => {
        wakeConsumer = resolve;
      });
    }
  } finally {
    isLeft = true;
    wakeReader();
    // Not awaited: a read that is under way ends by the source's own signal.
    iterator.return?.().catch(() => {});
  }
}
