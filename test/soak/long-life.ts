export async function longLife(_: {
  seed: number;
  events: number;
  say: (line: string) => void;
}): Promise<void> {}
