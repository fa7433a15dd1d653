/** Chance that can be had again: the same seed, the same rolls. */

export interface Dice {
  /** From 0 up to, not including, 1. */
  readonly roll: () => number;
  /** A whole number from 0 up to, not including, n. */
  below(n: number): number;
  isHeads(): boolean;
  pick<T>(from: readonly T[]): T;
}

/** Mulberry32: small, and good enough to choose moments. */
export function dice(seed: number): Dice {
  let state = seed;
  const roll = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (n: number) => Math.floor(roll() * n);
  return {
    roll,
    below,
    isHeads: () => roll() < 0.5,
    pick: (from) => from[below(from.length)] as never,
  };
}
