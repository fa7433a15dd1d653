/** A shop's machine: a state folder of the test's own, its bridge and its tills as real processes. */

import { brewctl, type Ended, type Running, type RunOptions, start } from "./brewctl.ts";
import { type TempFolder, tempFolder } from "./temp.ts";

export interface RunningBridge extends Running {
  /** Where tills connect: the first of its addresses. */
  readonly bridge: string;
  /** SIGTERM, and how it ended. */
  stop(signal?: NodeJS.Signals): Promise<Ended>;
}

export interface Shop extends Disposable {
  readonly folder: TempFolder;
  readonly buffer: string;
  readonly env: Record<string, string>;
  /** `brewctl store-sync run`, ready for tills. */
  run(args?: readonly string[], options?: RunOptions): Promise<RunningBridge>;
  /** `brewctl store-sync` with these words, to its end. */
  sync(line: string, input?: string): Promise<Ended>;
  /** As a till does: these events, to the bridge there. */
  record(bridge: string, ids: readonly string[]): Promise<Ended>;
}

export function shop(storeId = "store-01"): Shop {
  const folder = tempFolder();
  const env = { XDG_STATE_HOME: folder.path, BREWCTL_STORE: storeId };
  const sync: Shop["sync"] = (line, input) =>
    brewctl(["store-sync", ...line.split(" ")], {
      env,
      ...(input === undefined ? {} : { input }),
    });
  return {
    ...{ folder, env, sync },
    buffer: folder.file(`brewctl/stores/${storeId}/buffer.db`),
    async run(args = [], options = {}) {
      const listen = args.includes("--listen") ? [] : ["--listen", "127.0.0.1:0"];
      const running = start(["store-sync", "run", ...listen, ...args], { env, ...options });
      const [, bridge = ""] = await running.output(/listen"?[=:]"?([^ ,"]+)/);
      return Object.assign(Object.create(null, Object.getOwnPropertyDescriptors(running)), {
        bridge,
        stop(signal: NodeJS.Signals = "SIGTERM") {
          running.child.kill(signal);
          return running.ended;
        },
      }) as RunningBridge;
    },
    record: (bridge, ids) =>
      sync(`record --bridge ${bridge} --input - -q`, ids.map((id) => `${lineOf(id)}\n`).join("")),
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };
}

/** A sale that is a function of its id. */
export function lineOf(eventId: string): string {
  return JSON.stringify({ eventId, type: "Sale", payload: `sale ${eventId}`, timestamp: 1 });
}
