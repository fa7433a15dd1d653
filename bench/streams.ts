/** The three streams as a benchmark runs them, whoever implements them. */

export interface Streams {
  /** Each moves `count` messages, one way or both, and returns how many came. */
  subscribe(count: number): Promise<number>;
  upload(count: number): Promise<number>;
  chat(count: number): Promise<number>;
  close(): void;
}
