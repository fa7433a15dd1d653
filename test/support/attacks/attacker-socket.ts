/** Where attackers come from. */

import type { TcpNetConnectOpts } from "node:net";

/**
 * An attacker has an address of its own, as another machine would: a server counts what a peer takes by
 * its address. Only Linux has all of 127.0.0.0/8 on the loopback interface.
 */
export function attackerSocket(port: number): TcpNetConnectOpts {
  const host = "127.0.0.1";
  return process.platform === "linux" ? { port, host, localAddress: "127.0.0.2" } : { port, host };
}
