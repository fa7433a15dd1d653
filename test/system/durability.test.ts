/**
 * What is acknowledged is on the disk. Only a look at the system calls can show it: a process that
 * is killed leaves its unsynced writes to the kernel, and they are all there afterwards.
 */

import { create, type DescMessage, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { EventAckSchema, UploadSummarySchema } from "../../src/gen/sync/v1/sync_engine_pb.ts";
import { brewctl, type Running, serve, start } from "../support/brewctl.ts";
import {
  notYetSynced,
  readTrace,
  type SystemCall,
  strace,
  syncsOf,
  writesOf,
} from "../support/strace.ts";
import { type TempFolder, tempFolder } from "../support/temp.ts";

const ids = ["evt-durable-1", "evt-durable-2", "evt-durable-3"];

/** The arguments of a store's command, with its buffer in this folder. */
function storeSync(folder: TempFolder, ...args: string[]): string[] {
  return ["store-sync", ...args, "--store", "store-01", "--buffer", folder.file("buffer.db")];
}

async function record(folder: TempFolder): Promise<void> {
  const input = ids.map((eventId) => `${JSON.stringify({ type: "Sale", eventId })}\n`).join("");
  const { code } = await brewctl(storeSync(folder, "record", "--input", "-"), { input });
  expect(code).toBe(0);
}

/** The one write to a pipe or a socket with this in it. */
function answer(calls: readonly SystemCall[], where: RegExp, text: string): SystemCall {
  const [call, ...others] = calls.filter(
    ({ target, data }) => where.test(target) && data.includes(text),
  );
  if (call === undefined || others.length > 0) {
    throw new Error(`${others.length + (call ? 1 : 0)} writes of ${JSON.stringify(text)}`);
  }
  return call;
}

/** Before this answer the file's log held that text, and all of the log was synced. */
function expectOnDisk(
  calls: readonly SystemCall[],
  { file, text, answer }: { file: string; text: string; answer: SystemCall },
): void {
  const log = `${file}-wal`;
  const isWritten = ({ data, began }: SystemCall) => began < answer.began && data.includes(text);
  expect(writesOf(calls, log).some(isWritten)).toBe(true);
  expect(notYetSynced(calls, log, answer)).toHaveLength(0);
}

/** What Node gives a child for its standard output is a pair of sockets. */
const pipe = /^(pipe|UNIX)/;
const socket = /^TCP/;

/** What the checksum takes that follows in an answer: its tag and four bytes. */
const checksumBytes = 5;

/** An answer as gRPC has it on the wire up to its checksum, in the text of a trace. */
function onWire<D extends DescMessage>(schema: D, message: MessageShape<D>): string {
  const bytes = Buffer.from(toBinary(schema, message));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(bytes.length + checksumBytes, 1);
  return Buffer.concat([head, bytes]).toString("latin1");
}

test("a till hears that an event is recorded when it is on the disk, and its file's name as well", async () => {
  using folder = tempFolder();
  const args = ["store-sync", "record", "--type", "Sale", "--event-id", "evt-durable-1"];
  const { code } = await brewctl([...args, "--store", "store-01"], {
    env: { XDG_STATE_HOME: folder.file("state") },
    under: strace(folder.file("trace")),
  });
  expect(code).toBe(0);

  const calls = readTrace(folder.file("trace"));
  const recorded = answer(calls, pipe, "recorded [Sale] id=evt-durable-1");
  const place = folder.file("state/brewctl/stores/store-01");
  expectOnDisk(calls, { file: `${place}/buffer.db`, text: "evt-durable-1", answer: recorded });
  // A name is in the folder, which is a file of its own.
  const [firstWrite] = writesOf(calls, `${place}/buffer.db-wal`);
  const inTime = (path: string, after = 0) =>
    syncsOf(calls, path).some(({ began, ended }) => began >= after && ended < recorded.began);
  expect(inTime(place, firstWrite?.ended)).toBe(true);
  for (const path of ["state/brewctl/stores", "state/brewctl", "state", "."]) {
    expect([path, inTime(path === "." ? folder.path : folder.file(path))]).toEqual([path, true]);
  }
});

test("of a stream of events, each is on the disk before it is said to be recorded", async () => {
  using folder = tempFolder();
  await using till: Running = start(storeSync(folder, "record", "--input", "-"), {
    under: strace(folder.file("trace")),
    openStdin: true,
  });
  for (const eventId of ids) {
    till.child.stdin?.write(`${JSON.stringify({ type: "Sale", eventId })}\n`);
    await till.output(new RegExp(`recorded .* id=${eventId} `));
  }
  till.child.stdin?.end();
  expect(await till.ended).toMatchObject({ code: 0 });

  const calls = readTrace(folder.file("trace"));
  for (const text of ids) {
    const recorded = answer(calls, pipe, `recorded [Sale] id=${text}`);
    expectOnDisk(calls, { file: folder.file("buffer.db"), text, answer: recorded });
  }
});

test("a store hears ACK when the event is on the cloud's disk, and tells when it has noted it", async () => {
  using folder = tempFolder();
  await record(folder);
  await using cloud = await serve(["--data-dir", folder.file("cloud")], {
    under: strace(folder.file("cloud-trace")),
  });
  const args = storeSync(folder, "channel", "--until-drained", "--addr", cloud.addr);
  const store = await brewctl(args, { under: strace(folder.file("store-trace")) });
  expect(store).toMatchObject({ code: 0, stdout: ids.map((id) => `ACK: ${id}\n`).join("") });
  cloud.child.kill("SIGTERM");
  await cloud.ended;

  const ofCloud = readTrace(folder.file("cloud-trace"));
  const ofStore = readTrace(folder.file("store-trace"));
  for (const text of ids) {
    const ack = onWire(EventAckSchema, create(EventAckSchema, { eventId: text, ok: true }));
    const file = folder.file("cloud/ledger.db");
    expectOnDisk(ofCloud, { file, text, answer: answer(ofCloud, socket, ack) });

    const told = answer(ofStore, pipe, `ACK: ${text}`);
    const log = folder.file("buffer.db-wal");
    expect(writesOf(ofStore, log).some(({ began }) => began < told.began)).toBe(true);
    expect(notYetSynced(ofStore, log, told)).toHaveLength(0);
  }
});

test("a flush gets its summary when all events of it are on the cloud's disk", async () => {
  using folder = tempFolder();
  await record(folder);
  await using cloud = await serve(["--data-dir", folder.file("cloud")], {
    under: strace(folder.file("trace")),
  });
  const store = await brewctl(storeSync(folder, "flush", "--addr", cloud.addr));
  expect(store).toMatchObject({ code: 0 });
  cloud.child.kill("SIGTERM");
  await cloud.ended;

  const calls = readTrace(folder.file("trace"));
  const accepted = create(UploadSummarySchema, { accepted: ids.length });
  const summary = answer(calls, socket, onWire(UploadSummarySchema, accepted));
  for (const text of ids) {
    expectOnDisk(calls, { file: folder.file("cloud/ledger.db"), text, answer: summary });
  }
});
