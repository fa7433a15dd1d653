/** One item in, one item out. */

/**
 * What `source` yields, each item through `map`. What `map` throws ends the loop, and closes the source
 * as leaving it early does. A generator would do the same, and cost every item a few more promises.
 */
export function mapped<T, U>(source: AsyncIterable<T>, map: (item: T) => U): AsyncIterable<U> {
  return {
    [Symbol.asyncIterator]() {
      const iterator = source[Symbol.asyncIterator]();
      const close = async (): Promise<IteratorResult<U>> => {
        await iterator.return?.();
        return { done: true, value: undefined };
      };
      const read = (result: IteratorResult<T>): IteratorResult<U> | Promise<IteratorResult<U>> => {
        if (result.done) {
          return { done: true, value: undefined };
        }
        try {
          return { done: false, value: map(result.value) };
        } catch (error) {
          return close().then(() => {
            throw error;
          });
        }
      };
      return { next: () => iterator.next().then(read), return: close };
    },
  };
}
