/** Attacks on the ledger: poison numbers, invented stores, wide commands, long names. */

import { DigestSide, HeadOffice } from "../../../src/gen/sync/v1/head_office_pb.ts";
import { SyncEngine } from "../../../src/gen/sync/v1/sync_engine_pb.ts";
import { Answers } from "./answers.ts";
import { atOnce, untilAborted } from "./patience.ts";
import { type AttackOptions, gather, Peer, requestOf, type Target } from "./peer.ts";

const { watchCommands, uploadBufferedEvents, operationalChannel, reportStatus } = SyncEngine.method;
const { issueCommand, listStores, digest } = HeadOffice.method;

/** Watches for commands with cursors that no store can have. */
export async function impossibleCursors(
  target: Target,
  {
    cursors = [-1n, 2n ** 53n, 2n ** 63n - 1n],
    onSent,
    signal,
  }: AttackOptions & { readonly cursors?: readonly bigint[] },
): Promise<Answers> {
  using peer = new Peer(target);
  const calls = cursors.map((lastAppliedSequence, i) => {
    const handshake = { storeId: `cursor-${i}`, lastAppliedSequence };
    return peer.open(watchCommands, { body: requestOf(watchCommands, handshake) });
  });
  onSent?.();
  return await gather(calls, { signal });
}

/** Sends events whose seq is the largest number that JavaScript counts with, and lists the stores. */
export async function farSeqs(
  target: Target,
  {
    seq = 2n ** 53n - 1n,
    epochs = 2,
    onSent,
    signal,
  }: AttackOptions & { readonly seq?: bigint; readonly epochs?: number },
): Promise<Answers> {
  using peer = new Peer(target);
  const body = Buffer.concat(
    Array.from({ length: epochs }, (_, i) =>
      requestOf(operationalChannel, {
        ...{ storeId: "far-seqs", eventId: `far-${i}`, type: "Sale", payload: "{}" },
        ...{ epoch: `epoch-${i}`, seq },
      }),
    ),
  );
  const channel = peer.open(operationalChannel, { body });
  await untilAborted(channel.ended, signal);
  const list = peer.open(listStores, { body: requestOf(listStores, {}) });
  onSent?.();
  return await gather([channel, list], { signal });
}

/** Issues one large command to many invented stores. */
export async function wideCommand(
  target: Target,
  {
    stores = 400,
    bytes = 1024 * 1024,
    onSent,
    signal,
  }: AttackOptions & { readonly stores?: number; readonly bytes?: number },
): Promise<Answers> {
  using peer = new Peer(target);
  const request = {
    storeIds: Array.from({ length: stores }, (_, i) => `wide-${i}`),
    type: "PriceUpdate",
    payloadJson: JSON.stringify("x".repeat(bytes - 2)),
  };
  const call = peer.open(issueCommand, { body: requestOf(issueCommand, request) });
  onSent?.();
  return await gather([call], { signal });
}

/** Names stores in the metadata that have nothing but a long name, and sends bundles of events of them. */
export async function longStoreNames(
  target: Target,
  {
    calls = 3_000,
    bytes = 50_000,
    bundles = 40,
    onSent,
    signal,
  }: AttackOptions & {
    readonly calls?: number;
    readonly bytes?: number;
    readonly bundles?: number;
  },
): Promise<Answers> {
  using peer = new Peer(target, { maxDials: 100 });
  const answers = new Answers();
  const event = { storeId: "somebody", eventId: "e", type: "Sale" };
  const bundle = requestOf(operationalChannel, {
    ...event,
    more: Array.from({ length: 255 }, (_, i) => ({ eventId: `e-${i}`, type: "Sale" })),
  });
  // Only the first call has the bundles: it shows the answers and the log, the others the map.
  const first = Buffer.concat(Array.from({ length: bundles }, () => bundle));
  await atOnce(
    20,
    calls,
    async (i) => {
      const headers = { "brewctl-store": String(i).padEnd(bytes, "x") };
      const body = i === 0 ? first : Buffer.alloc(0);
      answers.add(await peer.open(operationalChannel, { headers, body }).ended);
    },
    { signal },
  );
  onSent?.();
  return answers;
}

/** Sends events that have nothing in them. */
export async function emptyEvents(
  target: Target,
  { events = 300_000, onSent, signal }: AttackOptions & { readonly events?: number },
): Promise<Answers> {
  using peer = new Peer(target);
  const call = peer.open(uploadBufferedEvents);
  const some = Buffer.alloc(5 * 1_000);
  for (let sent = 0; sent < events && !signal.aborted; sent += 1_000) {
    await untilAborted(call.send(some), signal);
  }
  call.stream?.end();
  onSent?.();
  return await gather([call], { signal });
}

/** Issues a small command to ever more stores that nobody has heard of, 10,000 a call. */
export async function inventedStores(
  target: Target,
  { stores = 60_000, onSent, signal }: AttackOptions & { readonly stores?: number },
): Promise<Answers> {
  using peer = new Peer(target);
  const answers = new Answers();
  const perCall = Math.min(stores, 10_000);
  for (let i = 0; i < stores && !signal.aborted; i += perCall) {
    const storeIds = Array.from({ length: perCall }, (_, j) => `invented-${i + j}`);
    const request = { storeIds, type: "PriceUpdate", payloadJson: "{}" };
    const call = peer.open(issueCommand, { body: requestOf(issueCommand, request) });
    await untilAborted(
      call.ended.then((answer) => answers.add(answer)),
      signal,
    );
  }
  onSent?.();
  return answers;
}

/** Reports the status of ever more stores that nobody has heard of. */
export async function inventedReports(
  target: Target,
  { stores = 20_000, onSent, signal }: AttackOptions & { readonly stores?: number },
): Promise<Answers> {
  using peer = new Peer(target, { maxDials: 100 });
  const answers = new Answers();
  await atOnce(
    100,
    stores,
    async (i) => answers.add(await peer.call(reportStatus, { storeId: `reported-${i}` })),
    { signal },
  );
  onSent?.();
  return answers;
}

/** Watches for the commands of many stores that nobody has heard of. */
export async function inventedWatches(
  target: Target,
  { stores = 5_000, onSent, signal }: AttackOptions & { readonly stores?: number },
): Promise<Answers> {
  using peer = new Peer(target);
  const calls = Array.from({ length: stores }, (_, i) =>
    peer.open(watchCommands, { body: requestOf(watchCommands, { storeId: `watched-${i}` }) }),
  );
  await peer.seen({ signal });
  onSent?.();
  return await gather(calls, { signal });
}

/** Asks many times at once for the digest of a store whose events all have a type of their own. */
export async function digests(
  target: Target,
  {
    calls = 60,
    cells = 20_000,
    onSent,
    signal,
  }: AttackOptions & { readonly calls?: number; readonly cells?: number },
): Promise<Answers> {
  using peer = new Peer(target);
  const upload = peer.open(uploadBufferedEvents);
  for (let i = 0; i < cells && !signal.aborted; i += 200) {
    const events = Array.from({ length: Math.min(200, cells - i) }, (_, j) => ({
      ...{ storeId: "many-cells", eventId: `cell-${i + j}`, type: `Type-${i + j}` },
      payload: "{}",
    }));
    const [first, ...more] = events;
    await untilAborted(upload.send(requestOf(uploadBufferedEvents, { ...first, more })), signal);
  }
  upload.stream?.end();
  await untilAborted(upload.ended, signal);
  const body = requestOf(digest, {
    ...{ storeId: "many-cells", side: DigestSide.LEDGER },
    range: { fromDay: "1970-01-01", toDay: "9999-12-31" },
  });
  const asked = Array.from({ length: calls }, () => peer.open(digest, { body }));
  onSent?.();
  return await gather(asked, { signal });
}
