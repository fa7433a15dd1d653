/**
 * Questions that head office has for a store: they go down on the stream on which the store watches for
 * commands, since only the store can dial, and the answer comes up in a call of its own. Nothing of it
 * is kept: whoever asks waits, or asks again.
 */

import { randomBytes } from "node:crypto";
import { Bell } from "../bell.ts";
import { StatusError } from "../errors.ts";
import type { DigestRange } from "../gen/sync/v1/digest_pb.ts";
import type { AnswerDigestRequest, DigestQuestion } from "../gen/sync/v1/sync_engine_pb.ts";

type Answer = AsyncIterable<AnswerDigestRequest>;

interface Asked {
  readonly storeId: string;
  /** Gives the asker the answer; resolves when it has read it. */
  give(answer: Answer): Promise<void>;
}

export class Questions {
  /** Of each store that answers, the questions that its stream is still to carry. */
  readonly #streams = new Map<
    string,
    { readonly waiting: DigestQuestion[]; readonly news: Bell }[]
  >();
  readonly #asked = new Map<string, Asked>();

  /** The questions for a store, for as long as its stream is there. Throws the signal's reason. */
  async *to(
    storeId: string,
    { signal }: { readonly signal: AbortSignal },
  ): AsyncGenerator<DigestQuestion, never> {
    const stream = { waiting: [] as DigestQuestion[], news: new Bell() };
    const streams = this.#streams.get(storeId) ?? [];
    streams.push(stream);
    this.#streams.set(storeId, streams);
    try {
      for (;;) {
        const news = stream.news.next({ signal });
        for (const question of stream.waiting.splice(0)) {
          yield question;
        }
        await news;
      }
    } finally {
      streams.splice(streams.indexOf(stream), 1);
      if (streams.length === 0) {
        this.#streams.delete(storeId);
      }
    }
  }

  /**
   * Asks a store, and yields its answer as it comes. Throws `StatusError`: FAILED_PRECONDITION when no
   * stream of the store takes questions, ABORTED when it goes away in the middle; and the signal's
   * reason, which also ends the wait for a store that stays silent.
   */
  async *ask(
    storeId: string,
    range: DigestRange,
    { signal }: { readonly signal: AbortSignal },
  ): AsyncGenerator<AnswerDigestRequest, void> {
    // The newest: an older one may be of a connection that has died without a word.
    const stream = this.#streams.get(storeId)?.at(-1);
    if (stream === undefined) {
      throw new StatusError(
        "FAILED_PRECONDITION",
        `store ${storeId} is not there to be asked: its bridge (store-sync run) is not connected`,
      );
    }
    const questionId = randomBytes(8).toString("hex");
    const came = Promise.withResolvers<Answer>();
    const read = Promise.withResolvers<void>();
    read.promise.catch(() => {});
    this.#asked.set(questionId, {
      storeId,
      give(answer) {
        came.resolve(answer);
        return read.promise;
      },
    });
    const onAbort = () => came.reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      stream.waiting.push({ $typeName: "sync.v1.DigestQuestion", questionId, range });
      stream.news.ring();
      const answer = await came.promise;
      for await (const part of answer) {
        signal.throwIfAborted();
        yield part;
      }
      read.resolve();
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#asked.delete(questionId);
      read.reject(new StatusError("ABORTED", "whoever asked has gone"));
    }
  }

  /**
   * Hands a store's answer to whoever asked, and resolves when it was read. Throws `StatusError` as the
   * contract has it.
   */
  async answer(parts: Answer): Promise<void> {
    const iterator = parts[Symbol.asyncIterator]();
    const first = await iterator.next();
    const questionId = first.done ? "" : first.value.questionId;
    const asked = this.#asked.get(questionId);
    if (asked === undefined) {
      throw new StatusError(
        "NOT_FOUND",
        `nobody waits for an answer to ${questionId || "nothing"}`,
      );
    }
    this.#asked.delete(questionId);
    async function* all() {
      for (let next = first; !next.done; next = await iterator.next()) {
        if (next.value.questionId !== questionId) {
          throw new StatusError("INVALID_ARGUMENT", "question_id changes within the answer");
        }
        yield next.value;
      }
    }
    await asked.give(all());
  }
}
