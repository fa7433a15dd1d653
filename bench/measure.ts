/** How a figure is taken: in rounds, side by side, so that a noisy machine is noisy for both. */

/** A figure of a table; its spread is that of the rounds. */
export interface Figure {
  /** Such as `glue/upload`. */
  readonly bench: string;
  /** What it says, for people. */
  readonly what: string;
  readonly unit: string;
  readonly median: number;
  /** The lower and the upper quartile. */
  readonly low: number;
  readonly high: number;
  readonly rounds: number;
  /** What it should reach, and whether that is a floor or a ceiling. */
  readonly target?: { readonly atLeast: number } | { readonly atMost: number };
}

export type Target = NonNullable<Figure["target"]>;

export function figure(
  bench: string,
  what: string,
  unit: string,
  values: readonly number[],
  target?: Target,
): Figure {
  const sorted = [...values].sort((a, b) => a - b);
  /** Between the two values that are nearest, in proportion. */
  const quantile = (share: number) => {
    const at = share * (sorted.length - 1);
    const below = sorted[Math.floor(at)] ?? Number.NaN;
    const above = sorted[Math.ceil(at)] ?? Number.NaN;
    return below + (above - below) * (at % 1);
  };
  return {
    bench,
    what,
    unit,
    median: quantile(0.5),
    low: quantile(0.25),
    high: quantile(0.75),
    rounds: values.length,
    ...(target === undefined ? {} : { target }),
  };
}

export function isReached({ median, target }: Figure): boolean {
  if (target === undefined) {
    return true;
  }
  return "atLeast" in target ? median >= target.atLeast : median <= target.atMost;
}

export interface Rounds {
  readonly rounds: number;
  /** So many more at first, which do not count. */
  readonly warmUp: number;
  /** What a round needs, and what it leaves; their time is nobody's. */
  readonly before?: () => unknown;
  readonly after?: () => unknown;
}

/**
 * The time of each contender in each round, in milliseconds. Every second round they run in
 * reverse, so that none of them always runs behind the same other.
 */
export async function inTurn<Name extends string>(
  contenders: Readonly<Record<Name, () => Promise<unknown>>>,
  { rounds, warmUp, before, after }: Rounds,
): Promise<Record<Name, number>[]> {
  const names = Object.keys(contenders) as Name[];
  const times: Record<Name, number>[] = [];
  for (let round = -warmUp; round < rounds; round += 1) {
    const order = round % 2 === 0 ? names : names.toReversed();
    const taken = {} as Record<Name, number>;
    await before?.();
    for (const name of order) {
      const startedAt = performance.now();
      await contenders[name]();
      taken[name] = performance.now() - startedAt;
    }
    await after?.();
    if (round >= 0) {
      times.push(taken);
    }
  }
  return times;
}
