/** Connects to the cloud, asks, and lets go. */

import type { DescService } from "@bufbuild/protobuf";
import { formatDuration } from "../../duration.ts";
import { StatusError } from "../../errors.ts";
import { type CallOptions, type Client, dial } from "../../grpc/dial.ts";
import { type Exit, Stop } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import type { ClientFlags } from "../flags.ts";

export async function ask<S extends DescService>(
  service: S,
  flags: ClientFlags,
  { terminal, clock, interrupted }: CommandContext,
  question: (client: Client<S>, call: CallOptions) => Promise<Exit>,
): Promise<Exit> {
  const signal = AbortSignal.any([interrupted, terminal.outputLost]);
  const deadline = flags.deadline === undefined ? undefined : clock.now() + flags.deadline;
  const connection = dial(flags.addr);
  try {
    await connection.ready({ signal, waitMs: flags.waitReady, deadline });
    return await question(connection.client(service), { signal, deadline });
  } catch (error) {
    if (error instanceof Stop) {
      return error.exit;
    }
    if (
      flags.deadline !== undefined &&
      error instanceof StatusError &&
      error.code === "DEADLINE_EXCEEDED"
    ) {
      const after = formatDuration(flags.deadline);
      throw new StatusError(error.code, `the call was not over after ${after} (--deadline)`);
    }
    throw error;
  } finally {
    connection.close();
  }
}
