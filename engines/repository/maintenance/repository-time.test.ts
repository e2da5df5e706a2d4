import { expect, test } from 'vitest';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { createRepositoryTime, DAY_MS } from './repository-time.ts';

const START = Date.parse('2026-11-24T16:00:00.000Z');
const YEARS = 3650 * DAY_MS;

function timeAt(kept: number | null = START) {
  const clocks = { host: START, server: START as number | null };
  const time = createRepositoryTime(kept, {
    clock: { now: () => clocks.host },
    serverTime: async () => clocks.server,
    log: testSeams().log,
  });
  return { clocks, time };
}
const inDoubt = expect.objectContaining({ code: 'CLOCK_IN_DOUBT' }) as unknown;

test('goes on with two clocks that agree, never ahead of either', async () => {
  const { clocks, time } = timeAt();
  Object.assign(clocks, { host: START + 5 * DAY_MS, server: START + 5 * DAY_MS - 7000 });
  expect(await time.read()).toEqual({ nowMs: START + 5 * DAY_MS - 7000, doubt: null, aheadOfMs: null });
  expect(time.lastMs()).toBe(START + 5 * DAY_MS - 7000);
});

test('never goes back; behind by hours it waits', async () => {
  const { clocks, time } = timeAt(START + DAY_MS / 2);
  expect(await time.read()).toEqual({ nowMs: START + DAY_MS / 2, doubt: null, aheadOfMs: null });
  clocks.host = clocks.server = START + DAY_MS;
  expect(await time.read()).toEqual({ nowMs: START + DAY_MS, doubt: null, aheadOfMs: null });
});

test.each([
  ['the host ten years ahead', { host: START + YEARS, server: START }],
  ['the host ten years behind', { host: START - YEARS, server: START }],
  ['the server ten years ahead', { host: START, server: START + YEARS }],
  ['both ten years behind', { host: START - YEARS, server: START - YEARS }],
  ['a day apart', { host: START + DAY_MS, server: START }],
  ['no server', { host: START + YEARS, server: null }],
  ['a server that says nonsense', { host: START, server: Number.NaN }],
  ['a host beyond all dates', { host: 9e15, server: START }],
])('in doubt it stands still: %s', async (_, to) => {
  const { clocks, time } = timeAt();
  Object.assign(clocks, to);
  expect(await time.read()).toMatchObject({ nowMs: START, doubt: inDoubt });
  Object.assign(clocks, { host: START + 1, server: START + 1 });
  expect(await time.read()).toEqual({ nowMs: START + 1, doubt: null, aheadOfMs: null });
});

test('begins with the first sure reading; a server that fails is none', async () => {
  const { clocks, time } = timeAt(null);
  clocks.server = null;
  expect(await time.read()).toMatchObject({ nowMs: null, doubt: inDoubt });
  clocks.server = START;
  expect(await time.read()).toEqual({ nowMs: START, doubt: null, aheadOfMs: null });
  const failing = createRepositoryTime(START, {
    clock: { now: () => START },
    serverTime: () => Promise.reject(new Error('unreachable')),
    log: testSeams().log,
  });
  expect(await failing.read()).toMatchObject({ nowMs: START, doubt: inDoubt });
});

test.each([
  [1, '1 day'],
  [700, '700 days'],
  [5 * 366, '5 years'],
])('%i days ahead of clocks that agree, it says so, and to what they can set it back', async (days, words) => {
  const { clocks, time } = timeAt(START + days * DAY_MS);
  clocks.server = START + 7000;
  const reading = await time.read();
  expect(reading).toMatchObject({ nowMs: START + days * DAY_MS, aheadOfMs: START });
  expect(reading.doubt!.message).toContain(`, ${words} ahead of the clocks, which show 2026-11-24T16:00:00.000Z`);
  time.setBack(START);
  expect(await time.read()).toEqual({ nowMs: START, doubt: null, aheadOfMs: null });
  clocks.server = START + DAY_MS;
  expect(await time.read()).toMatchObject({ doubt: inDoubt, aheadOfMs: null });
});
