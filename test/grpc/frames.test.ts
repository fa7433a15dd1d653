import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FrameDecoder, framed } from "../../src/grpc/frames.ts";

const maxMessageBytes = 1_000;
const frame = (...messages: Uint8Array[]) =>
  framed(
    messages.map((message) => Buffer.from(message)),
    messages.reduce((sum, { length }) => sum + length, 0),
  );

describe("a decoder", () => {
  test("finds the messages wherever the bytes are cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 10 }),
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }),
        (messages, cuts) => {
          const bytes = frame(...messages);
          const decoder = new FrameDecoder({ maxMessageBytes });
          const found: Buffer[] = [];
          for (let at = 0, i = 0; at < bytes.length; i++) {
            const length = cuts[i % cuts.length] ?? 1;
            found.push(...decoder.push(bytes.subarray(at, at + length)));
            at += length;
          }
          expect(found.map((message) => Array.from(message))).toEqual(
            messages.map((message) => Array.from(message)),
          );
        },
      ),
    );
  });

  test("keeps a message in pieces in one buffer of about its size", () => {
    const size = 4 * 1024 * 1024;
    const decoder = new FrameDecoder({ maxMessageBytes: size });
    const bytes = frame(Buffer.alloc(size, 7));
    let message: Buffer | undefined;
    for (let at = 0; at < bytes.length; at += 100) {
      [message] = decoder.push(bytes.subarray(at, at + 100));
      expect(decoder.heldBytes).toBeLessThanOrEqual(Math.min(size, 2 * (at + 100)));
    }
    expect(message?.equals(Buffer.alloc(size, 7))).toBe(true);
    expect(decoder.heldBytes).toBe(0);
  });

  test("refuses a message in very many small pieces, and not one whose pieces are few or large", () => {
    const pushAll = (size: number, piece: number) => {
      const decoder = new FrameDecoder({ maxMessageBytes: 100_000 });
      const bytes = frame(Buffer.alloc(size));
      for (let at = 0; at < bytes.length; at += piece) {
        decoder.push(bytes.subarray(at, at + piece));
      }
    };
    expect(() => pushAll(100_000, 1)).toThrow(
      expect.objectContaining({
        code: "RESOURCE_EXHAUSTED",
        message:
          "received 65 bytes of a message in 65 pieces; at least 64 bytes a piece are expected after 64 of them",
      }),
    );
    pushAll(60, 1);
    pushAll(100_000, 70);
  });

  test("makes no room for what was announced and has not come", () => {
    const header = Buffer.from([0, 0, 0x3f, 0xff, 0xff]);
    const before = process.memoryUsage().arrayBuffers;
    const decoders = Array.from({ length: 100 }, () => {
      const decoder = new FrameDecoder({ maxMessageBytes: 4 * 1024 * 1024 });
      decoder.push(header);
      return decoder;
    });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1024 * 1024);
    expect(decoders).toHaveLength(100);
  });

  test("can hand messages on with their headers, for a caller that inflates them", () => {
    const decoder = new FrameDecoder({ maxMessageBytes, keepsHeaders: true });
    const bytes = Buffer.concat([
      frame(Buffer.from("a"), Buffer.alloc(0)),
      Buffer.from([1, 0, 0, 0, 1, 9]),
    ]);
    const found = Array.from(bytes).flatMap((byte) => decoder.push(Buffer.from([byte])));
    expect(found).toEqual([
      frame(Buffer.from("a")),
      frame(Buffer.alloc(0)),
      Buffer.from([1, 0, 0, 0, 1, 9]),
    ]);
  });

  test("refuses a message that is announced as too large, and names both sizes", () => {
    const decoder = new FrameDecoder({ maxMessageBytes });
    expect(() => decoder.push(Buffer.from([0, 0, 0, 0x03, 0xe9]))).toThrow(
      expect.objectContaining({
        code: "RESOURCE_EXHAUSTED",
        message: "received a message of 1001 bytes; at most 1000 are allowed",
      }),
    );
  });

  test("refuses a compressed message before any of it is inflated", () => {
    const decoder = new FrameDecoder({ maxMessageBytes });
    expect(() => decoder.push(Buffer.from([1, 0, 0, 0, 4]))).toThrow(
      expect.objectContaining({ code: "UNIMPLEMENTED" }),
    );
  });
});
