/** Wakes whoever waits for something new. */

export class Bell {
  readonly #waiting = new Set<() => void>();

  /** Wakes all who wait now. */
  ring(): void {
    for (const wake of this.#waiting) {
      wake();
    }
  }

  /** Whether anybody waits. */
  get isAwaited(): boolean {
    return this.#waiting.size > 0;
  }

  /**
   * Resolves at the next ring; rejects with the signal's reason when it aborts. Whoever looks for what
   * is new asks for the next ring before looking, so that none falls between.
   */
  next({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    const rung = new Promise<void>((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason);
        return;
      }
      const wake = () => {
        this.#waiting.delete(wake);
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
      const onAbort = () => {
        this.#waiting.delete(wake);
        reject(signal.reason);
      };
      this.#waiting.add(wake);
      signal.addEventListener("abort", onAbort, { once: true });
    });
    // It may be asked for and then not waited for.
    rung.catch(() => {});
    return rung;
  }
}
