/** Locks between root and the user of a store, which only root can play. */

import { chmodSync, chownSync, mkdirSync, statSync } from "node:fs";
import { expect, test } from "vitest";
import { brewctl, serve, start } from "../support/brewctl.ts";
import { tempFolder } from "../support/temp.ts";

const nobody = 65534;
const asNobody = ["setpriv", `--reuid=${nobody}`, `--regid=${nobody}`, "--clear-groups"];

test("a lock that root made beside a user's buffer is the user's: one applier has it, the next is refused", async () => {
  using folder = tempFolder();
  chmodSync(folder.path, 0o755);
  const state = folder.file("state");
  mkdirSync(state);
  chownSync(state, nobody, nobody);
  await using cloud = await serve(["--memory"]);
  const env = { XDG_STATE_HOME: state, XDG_CACHE_HOME: state, BREWCTL_ADDR: cloud.addr };
  const watch = ["store-sync", "watch", "--store", "store-01"];
  const record = ["store-sync", "record", "--store", "store-01", "--type", "Sale", "-q"];
  expect(await brewctl(record, { env, under: asNobody })).toMatchObject({ code: 0 });

  const byRoot = await brewctl([...watch, "--for", "1ms"], { env });
  expect(byRoot).toMatchObject({ code: 0 });
  const lock = `${state}/brewctl/stores/store-01/buffer.db-applier`;
  expect(statSync(lock).uid).toBe(nobody);

  await using first = start(watch, { env, under: asNobody });
  await first.output(/live|watching|connected/i);
  const second = await brewctl(watch, { env, under: asNobody });
  expect(second.stderr).toContain("another process applies the commands of store store-01");
  expect(second.code).toBe(73);

  // A lock of another user, as an older version left it.
  first.child.kill("SIGTERM");
  await first.ended;
  chownSync(lock, 0, 0);
  const { stderr, code } = await brewctl(watch, { env, under: asNobody });
  expect(stderr).toContain(`${lock} cannot be locked: it belongs to user 0, and user ${nobody}`);
  expect(stderr).toContain(`chown ${nobody} ${lock}`);
  expect(code).toBe(71);
});
