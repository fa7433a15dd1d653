/** Ends a run with a line that machines read: `Tests: 123 passed, 0 failed`. */

import type { Reporter, TestModule } from "vitest/node";

export default class ClosingLine implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const count = { passed: 0, failed: errors.length, skipped: 0, pending: 0 };
    for (const module of modules) {
      if (module.state() === "failed" && module.children.size === 0) {
        count.failed += 1;
      }
      for (const test of module.children.allTests()) {
        count[test.result().state] += 1;
      }
    }
    const { passed, failed, skipped } = count;
    const rest = skipped > 0 ? `, ${skipped} skipped` : "";
    process.stdout.write(`Tests: ${passed} passed, ${failed} failed${rest}\n`);
  }
}
