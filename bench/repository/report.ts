/** Tables of what was taken, and whether it reaches what it must. */
import { renderTable } from '../../cli/output/table.ts';
import type { Taken } from './measure.ts';

export const MIB = 1024 * 1024;

/** A ratio, and how high it must be. */
export type Bar = { what: string; is: number; must: number };

/** How many times as fast `name` is as `other`. */
export function timesAsFast(taken: Map<string, Taken>, name: string, other: string): number {
  return taken.get(other)!.seconds / taken.get(name)!.seconds;
}

export function showTaken(title: string, taken: Map<string, Taken>, bytes: number): void {
  const table = renderTable(
    [...taken],
    [
      { title: 'WHO', of: ([name]) => name },
      { title: 'SECONDS', of: ([, { seconds }]) => seconds.toFixed(2), right: true },
      { title: 'MIB/S', of: ([, { seconds }]) => (bytes / MIB / seconds).toFixed(0), right: true },
      { title: 'CPU SECONDS', of: ([, { cpuSeconds }]) => cpuSeconds.toFixed(2), right: true },
    ],
  );
  console.log(`\n${title}\n\n${table}`);
}

export function showStored(stored: readonly { name: string; bytes: number }[], imageBytes: number): void {
  const table = renderTable(stored, [
    { title: 'STORED BY', of: ({ name }) => name },
    { title: 'MIB', of: ({ bytes }) => (bytes / MIB).toFixed(0), right: true },
    { title: 'OF THE IMAGE', of: ({ bytes }) => (bytes / imageBytes).toFixed(3), right: true },
  ]);
  console.log(`\n${table}`);
}

/** Whether all are met. */
export function judge(bars: readonly Bar[]): boolean {
  const isMet = ({ is, must }: Bar): boolean => is >= must;
  const table = renderTable(bars, [
    { title: 'BAR', of: ({ what }) => what },
    { title: 'IS', of: ({ is }) => is.toFixed(2), right: true },
    { title: 'AT LEAST', of: ({ must }) => must.toFixed(1), right: true },
    { title: '', of: (bar) => (isMet(bar) ? 'met' : 'NOT MET') },
  ]);
  console.log(`\n${table}`);
  return bars.every(isMet);
}
