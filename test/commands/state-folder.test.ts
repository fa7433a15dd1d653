/** Where brewctl's files are by default, also for a user who has no home. */

import { userInfo } from "node:os";
import { describe, expect, test, vi } from "vitest";
import { stateFolder } from "../../src/commands/state-folder.ts";
import { placeOf } from "../../src/commands/store-sync/buffer.ts";
import { UsageError } from "../../src/errors.ts";

const home = userInfo().homedir;

const database = vi.hoisted(() => ({ hasEntry: true }));
vi.mock("node:os", async (original) => {
  const os = await original<typeof import("node:os")>();
  return {
    ...os,
    userInfo() {
      if (!database.hasEntry) {
        throw new Error("A system error occurred: uv_os_get_passwd returned ENOENT");
      }
      return os.userInfo();
    },
  };
});

test.each([
  [{ XDG_STATE_HOME: "/state", HOME: "/home/till" }, "/state/brewctl"],
  [{ HOME: "/home/till" }, "/home/till/.local/state/brewctl"],
  [{ XDG_STATE_HOME: "state", HOME: "/home/till" }, "/home/till/.local/state/brewctl"],
  [{ XDG_STATE_HOME: "", HOME: "" }, `${home}/.local/state/brewctl`],
  [{ HOME: "till" }, `${home}/.local/state/brewctl`],
  [{}, `${home}/.local/state/brewctl`],
])("with %j it is %s", (env, folder) => {
  expect(stateFolder(env)).toBe(folder);
});

describe("a user without HOME and without an entry in the password database", () => {
  test.each([{}, { HOME: "" }, { HOME: "till", XDG_STATE_HOME: "state" }])(
    "is told what to set, with %j",
    (env) => {
      database.hasEntry = false;
      try {
        stateFolder(env);
        expect.unreachable();
      } catch (error) {
        expect(error).toBeInstanceOf(UsageError);
        expect(String(error)).toMatch(/there is no home folder: HOME is not/);
        expect((error as UsageError).hint).toMatch(/HOME or XDG_STATE_HOME.*--buffer.*--data-dir/);
      } finally {
        database.hasEntry = true;
      }
    },
  );

  test("needs no home when --buffer names the file", () => {
    vi.stubEnv("HOME", "");
    vi.stubEnv("XDG_STATE_HOME", "");
    database.hasEntry = false;
    try {
      const place = placeOf({ buffer: "/shop/b.db", store: "store-01" }, { say() {} });
      expect(place).toEqual({ path: "/shop/b.db", storeId: "store-01" });
      expect(() => placeOf({ store: "store-01" }, { say() {} })).toThrow(/no home folder/);
    } finally {
      database.hasEntry = true;
      vi.unstubAllEnvs();
    }
  });
});
