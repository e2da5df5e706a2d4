/**
 * Where the time of a transfer goes, and which stage holds it up. Pure.
 *
 * A lane has a few pieces of a disk in work at once. At each moment each of them is at exactly one stage, and the moment is
 * divided evenly among the pieces there are. So nothing is counted twice however much overlaps: over all stages it comes to
 * the time the lanes worked on the disk. Pieces gather in front of the stage that holds the others up, which makes it the
 * largest. What the stages before one take is its waiting for input; what those behind it take, its waiting for output.
 */

/** In the order in which a piece passes them. Throttling: held back by a rule, not by what anything can do. */
export const stages = ['source', 'proxy', 'throttling', 'network', 'target'] as const;
export type Stage = (typeof stages)[number];
/** As a piece of a restore passes them: the repository is its source, what is written its target. */
export const restoreStages: readonly Stage[] = ['source', 'throttling', 'network', 'proxy', 'target'];
/** Milliseconds, whole. */
export type StageTimes = Record<Stage, number>;

export const noStageTimes: Readonly<StageTimes> = { source: 0, proxy: 0, throttling: 0, network: 0, target: 0 };

export const addStageTimes = (a: Readonly<StageTimes>, b: Readonly<StageTimes>): StageTimes => ({
  source: a.source + b.source,
  proxy: a.proxy + b.proxy,
  throttling: a.throttling + b.throttling,
  network: a.network + b.network,
  target: a.target + b.target,
});

export const subtractStageTimes = (from: Readonly<StageTimes>, times: Readonly<StageTimes>): StageTimes => ({
  source: from.source - times.source,
  proxy: from.proxy - times.proxy,
  throttling: from.throttling - times.throttling,
  network: from.network - times.network,
  target: from.target - times.target,
});

/** `busy`, `waitsForInput` and `waitsForOutput` of a stage come to 100. */
export type StageShare = { busy: number; waitsForInput: number; waitsForOutput: number };
/** In percent, with one decimal. `bottleneck`: the stage with the largest share. */
export type StageVerdict = { bottleneck: Stage; shares: Record<Stage, StageShare> };

/** Null when no time was spent yet. `order`: in which pieces pass the stages. */
export function verdictOf(times: Readonly<StageTimes>, order: readonly Stage[] = stages): StageVerdict | null {
  const total = stages.reduce((sum, stage) => sum + times[stage], 0);
  if (total <= 0) return null;
  const percent = (part: number): number => Math.round((part / total) * 1000) / 10;
  const shares = {} as Record<Stage, StageShare>;
  let before = 0;
  for (const stage of order) {
    const behind = total - before - times[stage];
    shares[stage] = {
      busy: percent(times[stage]),
      waitsForInput: percent(before),
      waitsForOutput: percent(behind),
    };
    before += times[stage];
  }
  const bottleneck = stages.reduce((most, stage) => (times[stage] > times[most] ? stage : most));
  return { bottleneck, shares };
}

const capital = (word: string): string => word.charAt(0).toUpperCase() + word.slice(1);

/** "Source 91% > Proxy 6% > Network 2% > Target 1%"; throttling only where there was some. Empty when nothing is known. */
export function stageLine(times: Readonly<StageTimes> | null | undefined, order: readonly Stage[] = stages): string {
  const verdict = times ? verdictOf(times) : null;
  if (!verdict) return '';
  return order
    .filter((stage) => stage !== 'throttling' || times!.throttling > 0)
    .map((stage) => `${capital(stage)} ${Math.round(verdict.shares[stage].busy)}%`)
    .join(' > ');
}

/** "source 91%"; empty when nothing is known. */
export function bottleneckWords(times: Readonly<StageTimes> | null | undefined): string {
  const verdict = times ? verdictOf(times) : null;
  return verdict ? `${verdict.bottleneck} ${Math.round(verdict.shares[verdict.bottleneck].busy)}%` : '';
}
