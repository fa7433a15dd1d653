/** The connections of a client, shared out to its calls. */

import type { Client as GrpcClient } from "@grpc/grpc-js";
import { maxCallsPerConnection } from "./options.ts";

/** Where a call finds its connection. */
export interface Clients {
  take(): ClientLease;
}

export interface ClientLease {
  readonly grpcClient: GrpcClient;
  /** Is to be called once, when the call has ended. */
  release(): void;
}

/**
 * The connections behind a `Connection`: one, as long as its calls fit. A server takes a hundred calls
 * of a connection at a time, and grpc-js lets further ones wait without a word for one of them to end.
 * So they get another connection, which is closed again when it is not needed any more.
 */
export class ClientPool implements Clients {
  readonly #connect: () => GrpcClient;
  readonly #clients: { readonly grpcClient: GrpcClient; calls: number }[];

  constructor(first: GrpcClient, connect: () => GrpcClient) {
    this.#connect = connect;
    this.#clients = [{ grpcClient: first, calls: 0 }];
  }

  take(): ClientLease {
    let chosen = this.#clients.find(({ calls }) => calls < maxCallsPerConnection);
    if (chosen === undefined) {
      chosen = { grpcClient: this.#connect(), calls: 0 };
      this.#clients.push(chosen);
    }
    const taken = chosen;
    taken.calls += 1;
    return {
      grpcClient: taken.grpcClient,
      release: () => {
        taken.calls -= 1;
        const at = this.#clients.indexOf(taken);
        if (taken.calls === 0 && at > 0) {
          this.#clients.splice(at, 1);
          taken.grpcClient.close();
        }
      },
    };
  }

  close(): void {
    for (const { grpcClient } of this.#clients) {
      grpcClient.close();
    }
  }
}
