/** Health, as probes and load balancers ask it. */

import { expect, test } from "vitest";
import {
  Health,
  HealthCheckResponse_ServingStatus as Status,
} from "../../src/gen/grpc/health/v1/health_pb.ts";
import { collect, failure } from "../support/serve-handlers.ts";
import { never, serveLesson } from "../support/start-server.ts";

const options = { signal: never };
const lesson = "orders.v1.StreamingService";

test.each(["", lesson])("%j is serving from the start", async (service) => {
  await using server = await serveLesson();
  const health = server.dial().client(Health);
  expect((await health.check({ service }, options)).status).toBe(Status.SERVING);
});

test("a service that is not there is NOT_FOUND", async () => {
  await using server = await serveLesson();
  const health = server.dial().client(Health);
  expect(await failure(health.check({ service: "brew.v1.Tea" }, options))).toMatchObject({
    code: "NOT_FOUND",
    message: "unknown service brew.v1.Tea",
  });
});

test("the list has the server and the lesson", async () => {
  await using server = await serveLesson();
  const { statuses } = await server.dial().client(Health).list({}, options);
  expect(statuses).toMatchObject({
    "": { status: Status.SERVING },
    [lesson]: { status: Status.SERVING },
  });
});

test.each(["", lesson])("who watches %j hears of a stop before the watch ends", async (service) => {
  await using server = await serveLesson();
  const watch = server.dial().client(Health).watch({ service }, options)[Symbol.asyncIterator]();
  expect((await watch.next()).value).toMatchObject({ status: Status.SERVING });
  const rest = collect({ [Symbol.asyncIterator]: () => watch });
  await server.server.stop({ graceMs: 60_000, force: never });
  const { messages, error } = await rest;
  expect(messages.map(({ status }) => status)).toEqual([Status.NOT_SERVING]);
  expect(error).toMatchObject({ code: "UNAVAILABLE", message: "server shutting down" });
});

test("who watches a service that is not there is told so, and may go on watching", async () => {
  await using server = await serveLesson();
  const stop = new AbortController();
  const watch = server
    .dial()
    .client(Health)
    .watch({ service: "brew.v1.Tea" }, { signal: stop.signal })
    [Symbol.asyncIterator]();
  expect((await watch.next()).value).toMatchObject({ status: Status.SERVICE_UNKNOWN });
  const next = failure(watch.next());
  stop.abort(new Error("enough"));
  expect(String(await next)).toContain("enough");
});
