/** What can happen to a stream in both directions. */

import { expect, test } from "vitest";
import { isTransient, StatusError } from "../../src/errors.ts";
import {
  atRest,
  chat,
  collect,
  counted,
  each,
  serveHandlers,
  thenWait,
} from "../support/serve-handlers.ts";
import { enoughMs, never, serveLesson } from "../support/start-server.ts";
import { testClock } from "../support/test-clock.ts";

const silence = () => new Promise<void>(() => {});
const texts = (messages: readonly { text: string }[]) => messages.map(({ text }) => text);
const again = <T>(iterator: AsyncIterator<T>) => ({ [Symbol.asyncIterator]: () => iterator });

test("each message is echoed, in order", async () => {
  await using server = await serveLesson({ echoDelayMs: 0 });
  const words = Array.from({ length: 100 }, (_, i) => `ping ${i}`);
  const { messages, error } = await collect(
    server.client.chat(each(words.map(chat)), { signal: never }),
  );
  expect(error).toBeUndefined();
  expect(texts(messages)).toEqual(words.map((word) => `echo: ${word}`));
  expect(new Set(messages.map(({ from }) => from))).toEqual(new Set(["server"]));
  await server.log.line("chat ended: client closed send");
});

test("a chat without a message ends with OK", async () => {
  await using server = await serveLesson();
  const ended = await collect(server.client.chat(each([]), { signal: never }));
  expect(ended).toEqual({ messages: [], error: undefined });
});

test("echoes come while the client still sends", async () => {
  await using server = await serveLesson();
  const echoes = server.client.chat(thenWait([chat("hi")], silence()), { signal: never });
  for await (const { text } of echoes) {
    expect(text).toBe("echo: hi");
    break;
  }
});

test("the echoes that are due after the half-close still come, one delay apart", async () => {
  const clock = testClock();
  await using server = await serveLesson({ echoDelayMs: 200, clock });
  const echoes = server.client.chat(each([chat("a"), chat("b"), chat("c")]), { signal: never });
  const ended = collect(echoes);
  const start = clock.now();
  for (let i = 0; i < 3; i++) {
    await clock.sleeping();
    await clock.advance(200);
  }
  const { messages, error } = await ended;
  expect(error).toBeUndefined();
  expect(messages.map(({ sentAt }) => Number(sentAt?.seconds) * 1000 - start)).toHaveLength(3);
  expect(clock.now() - start).toBe(600);
});

test("a handler may go on sending after the half-close", async () => {
  await using server = await serveHandlers({
    async *chat(messages) {
      const { messages: all } = await collect(messages);
      for (let i = 0; i < 100; i++) {
        yield { text: `${i} of ${all.length}` };
      }
    },
  });
  const { messages, error } = await collect(
    server.client.chat(each([chat("a"), chat("b")]), { signal: never }),
  );
  expect(error).toBeUndefined();
  expect(texts(messages)).toEqual(Array.from({ length: 100 }, (_, i) => `${i} of 2`));
});

test("the messages before a StatusError arrive, then its code and message", async () => {
  await using server = await serveHandlers({
    async *chat(messages) {
      let i = 0;
      for await (const message of messages) {
        yield message;
        i += 1;
        if (i === 50) {
          throw new StatusError("RESOURCE_EXHAUSTED", "you talk too much");
        }
      }
    },
  });
  const source = counted((i) => chat(`${i}`), 1_000_000);
  const { messages, error } = await collect(server.client.chat(source.messages, { signal: never }));
  expect(messages).toHaveLength(50);
  expect(error).toMatchObject({ code: "RESOURCE_EXHAUSTED", message: "you talk too much" });
  await source.closed;
});

test("a fault in a handler is INTERNAL for the client, and its stack is in the log alone", async () => {
  await using server = await serveHandlers({
    async *chat(messages) {
      for await (const message of messages) {
        yield message;
        throw new TypeError("a secret of ours");
      }
    },
  });
  const source = thenWait([chat("hi")], silence());
  const { messages, error } = await collect(server.client.chat(source, { signal: never }));
  expect(texts(messages)).toEqual(["hi"]);
  expect(error).toMatchObject({ code: "INTERNAL" });
  expect(String(error)).not.toContain("secret");
  expect(await server.log.line("ERROR handler failed")).toMatch(/TypeError: a secret of ours\\n/);
});

test("a client that cancels gets its own reason, and the server learns that it has gone", async () => {
  await using server = await serveLesson();
  const stop = new AbortController();
  const reason = new Error("enough");
  const source = thenWait([chat("hi")], silence());
  const echoes = server.client.chat(source, { signal: stop.signal })[Symbol.asyncIterator]();
  await echoes.next();
  stop.abort(reason);
  await expect(echoes.next()).rejects.toBe(reason);
  await server.log.line("chat ended: client gone");
});

test("leaving the loop early cancels the chat and closes its source", async () => {
  await using server = await serveLesson({ echoDelayMs: 0 });
  const source = counted((i) => chat(`${i}`), 1_000_000);
  for await (const _ of server.client.chat(source.messages, { signal: never })) {
    break;
  }
  await source.closed;
  await server.log.line("chat ended: client gone");
});

test("what the source throws cancels the chat and is what its reader gets", async () => {
  await using server = await serveLesson();
  const fault = new Error("the pipe broke");
  const source = (async function* () {
    yield chat("hi");
    throw fault;
  })();
  const { error } = await collect(server.client.chat(source, { signal: never }));
  expect(error).toBe(fault);
});

test("a server that cancels is heard, and may be asked again", async () => {
  await using server = await serveHandlers({
    chat: () => {
      throw new StatusError("CANCELLED", "not now");
    },
  });
  const source = thenWait([chat("hi")], silence());
  const { error } = await collect(server.client.chat(source, { signal: never }));
  expect(error).toMatchObject({ code: "CANCELLED", message: "not now" });
  expect(isTransient(error)).toBe(true);
});

test("a handler that returns while the client still sends ends the chat with OK", async () => {
  await using server = await serveHandlers({
    async *chat() {
      yield { text: "goodbye" };
    },
  });
  const source = counted((i) => chat(`${i}`), 1_000_000);
  const { messages, error } = await collect(server.client.chat(source.messages, { signal: never }));
  expect(texts(messages)).toEqual(["goodbye"]);
  expect(error).toBeUndefined();
  await source.closed;
});

test("a client that does not read its echoes is no longer read", async () => {
  await using server = await serveLesson({ echoDelayMs: 0 });
  const source = counted((i) => chat(`${i} ${"x".repeat(8192)}`), 600);
  const echoes = server.client.chat(source.messages, { signal: never })[Symbol.asyncIterator]();
  await echoes.next();
  // Four buffers of 16, 64 read ahead, and what is on the wire.
  expect(await atRest(server, () => source.taken)).toBeLessThan(300);
  const { messages, error } = await collect(again(echoes));
  expect(error).toBeUndefined();
  expect(messages).toHaveLength(599);
  expect(messages.at(-1)?.text).toMatch(/^echo: 600 x/);
});

test("a handler that does not read holds the client up, but may still send", async () => {
  const mayRead = Promise.withResolvers<void>();
  await using server = await serveHandlers({
    async *chat(messages) {
      yield { text: "wait" };
      await mayRead.promise;
      const { messages: all } = await collect(messages);
      yield { text: `${all.length}` };
    },
  });
  const source = counted(() => chat("x".repeat(1024)), 3000);
  const answers = server.client.chat(source.messages, { signal: never })[Symbol.asyncIterator]();
  await answers.next();
  // 64 KiB each gather at the client, are on their way, fill the window, and wait at the server.
  expect(await atRest(server, () => source.taken)).toBeLessThan(4 * 64 + 16);
  mayRead.resolve();
  const { messages, error } = await collect(again(answers));
  expect(error).toBeUndefined();
  expect(texts(messages)).toEqual(["3000"]);
});

test("a deadline ends a chat on both sides", async () => {
  await using server = await serveLesson();
  const source = thenWait([chat("hi")], silence());
  const deadline = performance.now() + enoughMs;
  const { error } = await collect(server.client.chat(source, { signal: never, deadline }));
  expect(error).toMatchObject({ code: "DEADLINE_EXCEEDED" });
  await server.log.line("chat ended: deadline exceeded");
});

test("a chat does not hold a graceful stop up, and is told", async () => {
  await using server = await serveLesson();
  const source = thenWait([chat("hi")], silence());
  const echoes = server.client.chat(source, { signal: never })[Symbol.asyncIterator]();
  await echoes.next();
  const ended = collect(again(echoes));
  await server.server.stop({ graceMs: 60_000, force: never });
  const { error } = await ended;
  expect(error).toMatchObject({ code: "UNAVAILABLE", message: "server shutting down" });
  await server.log.line("chat ended: server shutting down");
});

test("a client that has stopped reading does not hold a forced stop up", async () => {
  await using server = await serveLesson({ echoDelayMs: 0 });
  const source = counted(() => chat("x".repeat(65_536)), 3000);
  const echoes = server.client.chat(source.messages, { signal: never })[Symbol.asyncIterator]();
  await echoes.next();
  await atRest(server, () => source.taken);
  await server.server.stop({ graceMs: 0, force: never });
  await server.log.line("chat ended: server shutting down");
  const { error } = await collect(again(echoes));
  expect(error).toMatchObject({ code: "CANCELLED" });
  expect(isTransient(error)).toBe(true);
});
