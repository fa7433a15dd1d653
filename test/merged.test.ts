import { expect, test } from "vitest";
import { merged } from "../src/merged.ts";

/** A source that yields what it is given, when it is given, and knows what was asked of it. */
function source<T>() {
  const due: PromiseWithResolvers<IteratorResult<T>>[] = [];
  const asked: PromiseWithResolvers<IteratorResult<T>>[] = [];
  const next = () => {
    const [one = Promise.withResolvers<IteratorResult<T>>()] = due.splice(0, 1);
    asked.push(one);
    return one.promise;
  };
  const give = () => {
    const open = asked.find((one) => !given.has(one)) ?? Promise.withResolvers();
    if (!asked.includes(open)) {
      due.push(open);
    }
    given.add(open);
    return open;
  };
  const given = new Set<object>();
  const self = {
    isClosed: false,
    get asked() {
      return asked.length;
    },
    yield: (value: T) => give().resolve({ done: false, value }),
    end: () => give().resolve({ done: true, value: undefined }),
    fail: (error: unknown) => give().reject(error),
    [Symbol.asyncIterator]: () => ({
      next,
      return: async (): Promise<IteratorResult<T>> => {
        self.isClosed = true;
        return { done: true, value: undefined };
      },
    }),
  };
  return self;
}

test("what the sources yield comes as it comes, and ends when all have ended", async () => {
  const [one, two] = [source<string>(), source<string>()];
  const all = merged(one, two);
  const first = all.next();
  two.yield("a");
  expect(await first).toEqual({ done: false, value: "a" });
  one.yield("b");
  expect((await all.next()).value).toBe("b");
  const last = all.next();
  one.end();
  await new Promise((resolve) => setImmediate(resolve));
  two.yield("c");
  expect((await last).value).toBe("c");
  two.end();
  expect((await all.next()).done).toBe(true);
});

test("no source, and one that ends at once", async () => {
  expect(await merged().next()).toMatchObject({ done: true });
  const empty = source();
  empty.end();
  expect(await merged(empty).next()).toMatchObject({ done: true });
});

test("a source is asked for its next item only when the one before has been handled", async () => {
  const [one, two] = [source<number>(), source<number>()];
  const all = merged(one, two);
  one.yield(1);
  await all.next();
  expect([one.asked, two.asked]).toEqual([1, 1]);
  two.yield(2);
  await all.next();
  expect([one.asked, two.asked]).toEqual([2, 1]);
});

test("a source that always has something does not hold the other one up", async () => {
  async function* busy() {
    for (;;) {
      yield "busy";
    }
  }
  async function* rare() {
    yield "rare";
  }
  const seen: string[] = [];
  for await (const item of merged<string>(busy(), rare())) {
    seen.push(item);
    if (item === "rare" || seen.length > 10) {
      break;
    }
  }
  expect(seen.at(-1)).toBe("rare");
});

test("the first error ends it, behind what came before, and closes the others", async () => {
  const [one, two] = [source<number>(), source<number>()];
  const all = merged(one, two);
  const first = all.next();
  one.yield(1);
  two.fail(new Error("lost"));
  expect((await first).value).toBe(1);
  await expect(all.next()).rejects.toThrow("lost");
  expect(one.isClosed).toBe(true);
});

test("leaving the loop closes all of them, also one that is being read", async () => {
  const [one, two] = [source<number>(), source<number>()];
  one.yield(1);
  for await (const _ of merged(one, two)) {
    break;
  }
  expect([one.isClosed, two.isClosed]).toEqual([true, true]);
  // Nobody waits for what its read becomes.
  two.fail(new Error("closed"));
  await new Promise((resolve) => setImmediate(resolve));
});

test("a source that is silent for long is listened to once, however much the other one says", async () => {
  const silent = Promise.withResolvers<IteratorResult<number>>();
  let listeners = 0;
  const then = silent.promise.then.bind(silent.promise);
  // biome-ignore lint/suspicious/noThenProperty: to count who listens
  silent.promise.then = ((...handlers: Parameters<typeof then>) => {
    listeners += 1;
    return then(...handlers);
  }) as typeof then;
  const mute = { [Symbol.asyncIterator]: () => ({ next: () => silent.promise }) };
  async function* busy() {
    yield* Array.from({ length: 1000 }, (_, i) => i);
    silent.resolve({ done: true, value: undefined });
  }
  let count = 0;
  for await (const _ of merged<number>(mute, busy())) {
    count += 1;
  }
  expect({ count, listeners }).toEqual({ count: 1000, listeners: 1 });
});
