/** One random call of the fuzzer: a function of its seed. */

import {
  type DescField,
  type DescMessage,
  type DescMethod,
  type DescService,
  ScalarType,
} from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { Health } from "../../src/gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "../../src/gen/grpc/reflection/v1/reflection_pb.ts";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { BridgeApi } from "../../src/gen/sync/v1/bridge_api_pb.ts";
import { HeadOffice } from "../../src/gen/sync/v1/head_office_pb.ts";
import { SyncEngine } from "../../src/gen/sync/v1/sync_engine_pb.ts";
import { pathOf } from "../support/attacks/peer.ts";
import { type Dice, dice } from "../support/dice.ts";
import { frame } from "../support/raw-call.ts";

export type FuzzedServer = "cloud" | "bridge";

export interface FuzzCase {
  readonly seed: number;
  readonly at: FuzzedServer;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly messages: readonly Buffer[];
  /** How the frames of the messages lie: about being compressed, and about their length. */
  readonly flag: number;
  readonly lengthError: number;
  /** Bytes a write; 0 for all at once. */
  readonly splitEvery: number;
  readonly end: "half-close" | "reset" | "stay open";
}

const services: Readonly<Record<FuzzedServer, readonly DescService[]>> = {
  cloud: [StreamingService, SyncEngine, HeadOffice, Health, ServerReflection],
  bridge: [BridgeApi, Health, ServerReflection],
};

export function fuzzCase(seed: number): FuzzCase {
  const chance = dice(seed);
  const { below, pick } = chance;
  const at = below(4) === 0 ? "bridge" : "cloud";
  const service = pick(services[at]);
  const method = pick(service.methods);
  const count = oneIn(chance, 3) ? 1 + below(20) : 1;
  // Half of the cases have messages without any fault, so that they come far into the code.
  const wildness = oneIn(chance, 2) ? 0 : 1;
  return {
    ...{ seed, at, path: pathFor(chance, method), headers: headersFor(chance) },
    messages: Array.from({ length: count }, () => messageFor(chance, method.input, wildness, 0)),
    flag: oneIn(chance, 20) ? pick([1, 2, 255]) : 0,
    lengthError: oneIn(chance, 20) ? pick([-1, 1, 1_000, 2 ** 31, 2 ** 32 - 1]) : 0,
    splitEvery: oneIn(chance, 10) ? pick([1, 4, 5, 6, 100]) : 0,
    end: pick(["half-close", "half-close", "half-close", "reset", "stay open"]),
  };
}

/** What a case writes, in order. */
export function writesOf({ messages, flag, lengthError, splitEvery }: FuzzCase): Buffer[] {
  const frames = messages.map((message) => {
    const length = Math.min(Math.max(message.length + lengthError, 0), 2 ** 32 - 1);
    return frame(message, { flag, length });
  });
  const all = Buffer.concat(frames);
  // A byte a write costs a packet each; the beginning is where the frames' heads are.
  const each = splitEvery === 0 ? all.length : Math.max(splitEvery, Math.ceil(all.length / 200));
  const writes: Buffer[] = [];
  for (let i = 0; i < all.length; i += each) {
    writes.push(all.subarray(i, i + each));
  }
  return writes;
}

const oneIn = ({ below }: Dice, n: number) => below(n) === 0;

function pathFor(chance: Dice, method: DescMethod): string {
  if (method.parent === ServerReflection && chance.isHeads()) {
    return pathOf(method, "grpc.reflection.v1alpha.ServerReflection");
  }
  return oneIn(chance, 50) ? `${pathOf(method)}/../x` : pathOf(method);
}

const oddHeaders: readonly ((chance: Dice) => Record<string, string>)[] = [
  () => ({ "brewctl-store": "store-01", "brewctl-epoch": "aaaaaaaaaaaaaaaa" }),
  () => ({ "brewctl-store": "%E0%A4%A" }),
  () => ({ "brewctl-store": "" }),
  () => ({ "brewctl-store": "%00%1b%5b31m" }),
  () => ({ "brewctl-store": "x".repeat(60_000) }),
  () => ({ "brewctl-epoch": "y".repeat(2_000), "brewctl-store": "store-01" }),
  () => ({ "x-odd-bin": "not base64 at all" }),
  ({ below }) => ({ "brewctl-store-bin": Buffer.alloc(below(100), below(256)).toString("base64") }),
  () => Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`x-${i}`, "z"])),
  ({ pick }) => ({
    "grpc-timeout": pick(["soon", "", "1n", "1u", "0S", "-1S", "5m", "99999999H", "123456789S"]),
  }),
  ({ pick }) => ({
    "content-type": pick([
      ...["application/json", "application/grpc+proto", "application/grpc+json"],
      ...["application/grpc-web", "text/html", ""],
    ]),
  }),
  ({ pick }) => ({
    "grpc-encoding": pick(["gzip", "deflate", "identity", "br", "", "x".repeat(999)]),
  }),
  ({ pick }) => ({ "grpc-accept-encoding": pick(["", "gzip,deflate", ",,,", "nothing"]) }),
  ({ pick }) => ({ ":method": pick(["GET", "PUT", "OPTIONS"]) }),
  () => ({ te: "gzip" }),
];

function headersFor(chance: Dice): Record<string, string> {
  return oneIn(chance, 3) ? chance.pick(oddHeaders)(chance) : {};
}

const oddNumbers = [
  ...[0n, 1n, 2n, 5n, 1_700_000_000_000n, -1n, 127n, 2n ** 31n - 1n, 2n ** 31n, -(2n ** 31n)],
  ...[2n ** 40n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n - 1n, -(2n ** 63n)],
];
const tameNumbers = [0n, 1n, 2n, 5n, 1_700_000_000_000n];

const tameTexts = [
  "store-01",
  "Sale",
  "PriceUpdate",
  "{}",
  "2026-01-02",
  "e-1",
  "aaaaaaaaaaaaaaaa",
];
const oddTexts: readonly (() => Uint8Array)[] = [
  ...["", "x".repeat(128), "x".repeat(129), "x".repeat(1_025), "x".repeat(70_000)],
  ...["\u0000", "\u001b[31mred", "a\nb", "☕".repeat(50), "../../etc/passwd", "%00", "__proto__"],
  ...["constructor", "'; DROP TABLE events; --", "\u202e\ufeff", "9999-99-99", "0000-00-00"],
].map((text) => () => Buffer.from(text));
const noTexts = [Buffer.from([0xc3, 0x28]), Buffer.from([0xff]), Buffer.from([0xed, 0xa0, 0x80])];

/** The bytes of a message; with a wildness of 0 it is one that decodes. */
function messageFor(chance: Dice, type: DescMessage, wildness: number, depth: number): Buffer {
  const { below, pick } = chance;
  const writer = new BinaryWriter();
  for (const field of type.fields) {
    if (oneIn(chance, 4)) {
      continue;
    }
    const isList = field.fieldKind === "list";
    const many = wildness > 0 && oneIn(chance, 40) ? 300 : 1;
    for (let i = 0; i < (isList ? below(4) * many : many); i++) {
      writeField(writer, chance, field, wildness, depth);
    }
  }
  if (wildness === 0) {
    return Buffer.from(writer.finish());
  }
  if (oneIn(chance, 15)) {
    // A field that nobody knows.
    writer.tag(pick([100, 2_000, 536_870_911]), WireType.LengthDelimited).bytes(Buffer.alloc(50));
  }
  if (oneIn(chance, 30)) {
    // A group that is begun, or ended, alone.
    writer.tag(1 + below(9), pick([WireType.StartGroup, WireType.EndGroup]));
  }
  const bytes = Buffer.from(writer.finish());
  if (oneIn(chance, 15)) {
    return bytes.subarray(0, below(bytes.length + 1));
  }
  if (oneIn(chance, 15) && bytes.length > 0) {
    bytes[below(bytes.length)] = below(256);
  }
  return bytes;
}

function writeField(
  writer: BinaryWriter,
  chance: Dice,
  field: DescField,
  wildness: number,
  depth: number,
): void {
  const { pick } = chance;
  const isOdd = oneIn(chance, 4);
  if (wildness > 0 && oneIn(chance, 25)) {
    const odd = Buffer.alloc(chance.below(10), 0xff);
    writer.tag(field.number, pick([WireType.Varint, WireType.Bit64, WireType.LengthDelimited]));
    writer.raw(odd);
    return;
  }
  if (field.message !== undefined) {
    if (depth < 3) {
      const inner = messageFor(chance, field.message, wildness, depth + 1);
      const isDeep = wildness > 0 && oneIn(chance, 30);
      writer.tag(field.number, WireType.LengthDelimited);
      writer.bytes(isDeep ? nested(field.number, chance.pick([101, 1_000])) : inner);
    }
    return;
  }
  const isText = field.scalar === ScalarType.STRING || field.scalar === ScalarType.BYTES;
  if (isText) {
    const isBroken = wildness > 0 && oneIn(chance, 25);
    const text = isBroken ? pick(noTexts) : isOdd ? pick(oddTexts)() : Buffer.from(pick(tameTexts));
    writer.tag(field.number, WireType.LengthDelimited).bytes(text);
    return;
  }
  if (field.scalar === ScalarType.FIXED32) {
    // A checksum, which is wrong whatever number it is: a tame message has none.
    if (wildness > 0) {
      const number = Number(BigInt.asUintN(32, BigInt(pick(oddNumbers))));
      writer.tag(field.number, WireType.Bit32).fixed32(number);
    }
    return;
  }
  // All other numbers of the contract are varints: int32, int64, bool and enums.
  writer.tag(field.number, WireType.Varint).int64(pick(isOdd ? oddNumbers : tameNumbers));
}

/** A message in itself, so many times. */
function nested(field: number, times: number): Buffer {
  let inner = Buffer.alloc(0);
  for (let i = 0; i < times; i++) {
    const writer = new BinaryWriter();
    writer.tag(field, WireType.LengthDelimited).bytes(inner);
    inner = Buffer.from(writer.finish());
  }
  return inner;
}
