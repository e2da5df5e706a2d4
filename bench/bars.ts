/** Rows of a bench: what was measured, what it must be, and whether it is. */
import { renderTable } from '../cli/output/table.ts';

export type Row = { what: string; is: string; must: string; isMet: boolean };

/** `limit` Infinity: told, and judged by nobody. */
export const below = (what: string, value: number, unit: string, limit: number, digits = 0): Row => ({
  what,
  is: `${value.toFixed(digits)} ${unit}`,
  must: Number.isFinite(limit) ? `< ${limit} ${unit}` : '',
  isMet: value < limit,
});
export const told = (what: string, value: number, unit: string, digits = 0): Row =>
  below(what, value, unit, Infinity, digits);

/** As a table with `title`; the exit code is 1 from here on when something was missed. */
export function showBars(title: string, rows: readonly Row[]): void {
  const missed = rows.filter((row) => !row.isMet);
  console.log(
    renderTable(rows, [
      { title, of: (row) => row.what },
      { title: 'IS', of: (row) => row.is, right: true },
      { title: 'MUST BE', of: (row) => row.must, right: true },
      { title: '', of: (row) => (row.must === '' ? '' : row.isMet ? 'met' : 'NOT MET') },
    ]),
  );
  console.log(missed.length === 0 ? '\nall met\n' : `\nNOT MET: ${missed.map(({ what }) => what).join(', ')}\n`);
  if (missed.length > 0) process.exitCode = 1;
}

export const median = (numbers: readonly number[]): number =>
  [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)]!;
