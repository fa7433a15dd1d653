/** Connects to the cloud, asks, and lets go. */

import { formatDuration } from "../../duration.ts";
import { StatusError } from "../../errors.ts";
import { HeadOffice } from "../../gen/sync/v1/head_office_pb.ts";
import { type CallOptions, type Client, dial } from "../../grpc/dial.ts";
import { type Exit, Stop } from "../../shutdown.ts";
import { headOfficeAnswers } from "../answer-bounds.ts";
import type { CommandContext } from "../client-call.ts";
import type { ClientFlags } from "../flags.ts";

export async function ask(
  flags: ClientFlags,
  { terminal, clock, interrupted }: CommandContext,
  question: (client: Client<typeof HeadOffice>, call: CallOptions) => Promise<Exit>,
): Promise<Exit> {
  const signal = AbortSignal.any([interrupted, terminal.outputLost]);
  const deadline = flags.deadline === undefined ? undefined : clock.monotonic() + flags.deadline;
  const connection = dial(flags.addr);
  try {
    await connection.ready({ signal, waitMs: flags.waitReady, deadline });
    return await question(connection.client(HeadOffice, { bounds: headOfficeAnswers }), {
      signal,
      deadline,
    });
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
