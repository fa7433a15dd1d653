/**
 * (a) What our glue costs beside grpc-js by hand: the same messages, in the three stream shapes. By hand
 * there are two servers: as grpc-js's documentation shows it, which is what the target is about, and one
 * that sends what has gathered together (by-hand-batched.ts).
 */

import { streamsByHand } from "./by-hand.ts";
import { type Figure, figure, inTurn } from "./measure.ts";
import { startServerProcess } from "./processes.ts";
import { streamsWithGlue } from "./with-glue.ts";

/** Half a second a round, more or less: of a stream, not of how it begins and ends. */
const messages = { subscribe: 40_000, upload: 40_000, chat: 20_000 };

export async function glue(): Promise<Figure[]> {
  using serverByHand = await startServerProcess("by-hand");
  using serverBatched = await startServerProcess("by-hand-batched");
  using serverWithGlue = await startServerProcess("with-glue");
  const byHand = streamsByHand(serverByHand.port);
  const batched = streamsByHand(serverBatched.port);
  const withGlue = streamsWithGlue(serverWithGlue.port);
  const figures: Figure[] = [];
  try {
    for (const shape of ["subscribe", "upload", "chat"] as const) {
      const count = messages[shape];
      const complete = async (received: Promise<number>) => {
        if ((await received) !== count) {
          throw new Error(`${shape}: not all of ${count} messages came`);
        }
      };
      const rounds = await inTurn(
        {
          byHand: () => complete(byHand[shape](count)),
          batched: () => complete(batched[shape](count)),
          withGlue: () => complete(withGlue[shape](count)),
        },
        { rounds: 30, warmUp: 4 },
      );
      const name = `glue/${shape}`;
      figures.push(
        figure(
          name,
          "messages per second, glue : by hand",
          "×",
          rounds.map((round) => round.byHand / round.withGlue),
          { atLeast: 0.95 },
        ),
        figure(
          `${name}/batched`,
          "messages per second, glue : by hand, batched",
          "×",
          rounds.map((round) => round.batched / round.withGlue),
        ),
        figure(
          `${name}/rate`,
          "messages per second with the glue",
          "/s",
          rounds.map((round) => (count * 1000) / round.withGlue),
        ),
      );
    }
  } finally {
    byHand.close();
    batched.close();
    withGlue.close();
  }
  return figures;
}
