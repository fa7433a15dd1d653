/** (b) Whole processes, from fork to exit: bare Node, a version, one short call, and buf's of the same. */

import { globSync } from "node:fs";
import { type Figure, figure, inTurn } from "./measure.ts";
import { brewctl, root, run, startServerProcess } from "./processes.ts";

/** The program itself: what npm puts on the path is a Node script that starts it. */
const [buf = ""] = globSync(`${root}node_modules/@bufbuild/buf-*/bin/buf`);

export async function startUp(): Promise<Figure[]> {
  using server = await startServerProcess("lesson");
  const address = `localhost:${server.port}`;
  const url = `http://${address}/orders.v1.StreamingService/Subscribe`;
  // With the contract at hand; by reflection it takes longer.
  const plainGrpc = ["--schema", `${root}proto`, "--protocol", "grpc", "--http2-prior-knowledge"];
  const rounds = await inTurn(
    {
      node: () => run(process.execPath, ["-e", "0"]),
      version: () => run(brewctl, ["--version"]),
      call: () => run(brewctl, ["subscribe", "--limit", "1", "--addr", address]),
      buf: () => run(buf, ["curl", ...plainGrpc, "--data", '{"limit":1}', url]),
    },
    { rounds: 40, warmUp: 3 },
  );
  const ratio = (of: (round: (typeof rounds)[number]) => number) => rounds.map(of);
  return [
    figure(
      "start-up/version",
      "brewctl --version : node -e 0",
      "×",
      ratio(({ version, node }) => version / node),
      { atMost: 1.8 },
    ),
    figure(
      "start-up/call",
      "brewctl subscribe --limit 1 : node -e 0",
      "×",
      ratio(({ call, node }) => call / node),
      { atMost: 4 },
    ),
    figure(
      "start-up/call-buf",
      "brewctl subscribe --limit 1 : buf curl",
      "×",
      ratio(({ call, buf }) => call / buf),
      { atMost: 2 },
    ),
    figure(
      "start-up/call/time",
      "brewctl subscribe --limit 1",
      "ms",
      ratio(({ call }) => call),
    ),
  ];
}
