import { expect, test } from 'vitest';
import { parseDuration, parseRate, parseSize } from './measures.ts';
import { editDistance, nearestName } from './nearest-name.ts';

test.each([
  ['256KiB', 262_144],
  ['1MiB', 1_048_576],
  ['1.5 GiB', 1_610_612_736],
  ['2TiB', 2 * 2 ** 40],
  ['17B', 17],
  ['17', 17],
  [1_000_001, 1_000_001],
  [0, 0],
  ['0.3KiB', null],
  ['1MB', null],
  ['1mib', null],
  ['-1', null],
  [-1, null],
  [1.5, null],
  ['999999999999999PiB', null],
  ['', null],
  [null, null],
])('size %j is %j bytes', (text, bytes) => expect(parseSize(text)).toBe(bytes));

test.each([
  ['90s', 90_000],
  ['15m', 900_000],
  ['1h30m', 5_400_000],
  ['1h 30m', 5_400_000],
  ['2d', 172_800_000],
  ['250ms', 250],
  ['0s', 0],
  [0, 0],
  [15, null],
  ['15', null],
  ['m', null],
  ['15m ', null],
  ['-5m', null],
  ['1.5h', null],
  ['', null],
])('duration %j is %j ms', (text, durationMs) => expect(parseDuration(text)).toBe(durationMs));

test('a name that is near is found, one that is not is not', () => {
  expect(editDistance('main', 'mian')).toBe(1);
  expect(editDistance('', 'abc')).toBe(3);
  expect(nearestName('nigthly', ['weekly', 'nightly'])).toBe('nightly');
  expect(nearestName('Main', ['main'])).toBe('main');
  expect(nearestName('p2', ['p1', 'proxy'])).toBe('p1');
  expect(nearestName('other', ['main', 'archive'])).toBeNull();
  expect(nearestName('x'.repeat(100), ['x'.repeat(99)])).toBeNull();
});

test.each([
  ['50MiB/s', 50 * 2 ** 20],
  ['100Mbit/s', 12_500_000],
  ['1.5 Gbit/s', 187_500_000],
  ['800kbit/s', 100_000],
  ['4096B/s', 4096],
  ['50MiB', null],
  ['50', null],
  [50, null],
  ['50MB/s', null],
  ['-1Mbit/s', null],
  ['Mbit/s', null],
])('rate %j is %j bytes per second', (text, bytesPerSecond) => expect(parseRate(text)).toBe(bytesPerSecond));
