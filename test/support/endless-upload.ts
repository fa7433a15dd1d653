/** A client process that uploads to the port of its first argument until it is killed. */

import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { dial } from "../../src/grpc/dial.ts";

const port = Number(process.argv[2]);
const connection = dial({ kind: "tcp", host: "127.0.0.1", port });
await connection.client(StreamingService).uploadOrders(
  (async function* () {
    for (;;) {
      yield { customerId: "cus-001", amountCents: 1n };
    }
  })(),
  { signal: new AbortController().signal },
);
