/** Marks a store's commands as delivered when the store has received them, and not when they were written. */

export interface DeliveryMarksOptions {
  /** Resolves when the peer has received all that was written before the call. */
  readonly flushed: () => Promise<void>;
  /** Notes that all commands up to this sequence were delivered. */
  readonly mark: (sequence: number) => void;
  /** Is told what `flushed` or `mark` has thrown; nothing is marked any more after that. */
  readonly onFailure: (error: unknown) => void;
}

/** One round trip is under way at a time, and the next one covers all that was written meanwhile. */
export class DeliveryMarks {
  readonly #options: DeliveryMarksOptions;
  #written = 0;
  #isAsking = false;

  constructor(options: DeliveryMarksOptions) {
    this.#options = options;
  }

  /** Says that the commands up to this sequence were written. */
  written(sequence: number): void {
    this.#written = sequence;
    if (!this.#isAsking) {
      this.#isAsking = true;
      this.#ask().catch(this.#options.onFailure);
    }
  }

  async #ask(): Promise<void> {
    const { flushed, mark } = this.#options;
    let marked = 0;
    while (marked < this.#written) {
      const upTo = this.#written;
      await flushed();
      mark(upTo);
      marked = upTo;
    }
    this.#isAsking = false;
  }
}
