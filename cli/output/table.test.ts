import { expect, test } from 'vitest';
import { formatBytes } from '../../schema/domain/figures.ts';
import { formatDuration, renderTable } from './table.ts';

test('columns line up, numbers to the right, no blanks at the end of a line', () => {
  const rows = [
    { name: 'a', size: 5 },
    { name: 'longer', size: 12_345 },
  ];
  const text = renderTable(rows, [
    { title: 'NAME', of: (row) => row.name },
    { title: 'SIZE', of: (row) => String(row.size), right: true },
  ]);
  expect(text).toBe('NAME     SIZE\na           5\nlonger  12345');
});

test('bytes and durations read as people say them', () => {
  expect([0, 1023, 1024, 1536, 150 * 1024, 5 * 2 ** 30].map(formatBytes)).toEqual([
    '0 B',
    '1023 B',
    '1.0 KiB',
    '1.5 KiB',
    '150 KiB',
    '5.0 GiB',
  ]);
  expect([900, 12_400, 75_000, 3_720_000].map(formatDuration)).toEqual(['0.9 s', '12 s', '1 min 15 s', '1 h 2 min']);
});
