/** `--store`, where it may name several. Not by commas: an id may have some. */

import { InvalidArgumentError, Option } from "commander";

export function storeFlag(description: string): Option {
  return new Option("--store <id>", description).argParser(
    (storeId: string, others: readonly string[] = []) => {
      if (storeId === "") {
        throw new InvalidArgumentError("expected something");
      }
      return [...others, storeId];
    },
  );
}
