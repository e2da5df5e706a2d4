/** Repository time that ran ahead with wrong clocks is set back by a person; nothing ends earlier by that. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import { createMaintained, DAY_MS, type Maintained } from '../../../tests/fixtures/repository/maintained.ts';
import { diskOf, verbsOf } from '../../../tests/fixtures/repository/verbs.ts';

const YEARS = 5 * 365 * DAY_MS;
let world: Maintained;
afterEach(async () => {
  await world.storage.store.protect(await world.storage.store.list('manifests'), false);
  await world.close();
});
const { sealedFull } = verbsOf(() => world);
const held = expect.objectContaining({ code: 'RESTORE_POINT_HELD' }) as Error;
const remove = (id: RestorePointId) => world.repository.removeRestorePoint(id, { last: true });
const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10);
const isoOf = (ms: number): string => new Date(ms).toISOString();
/** Both clocks by mistake, until repository time has believed them; `meanwhile`, then they are right again. */
async function believeWrongClocks(meanwhile: () => Promise<unknown> = async () => undefined): Promise<void> {
  const sound = { ...world.clocks };
  world.pass(YEARS);
  await world.repository.readTime();
  await meanwhile();
  Object.assign(world.clocks, sound);
}

test('it goes on from the present, also after a restart; said again it changes nothing', async () => {
  world = await createMaintained();
  await believeWrongClocks(() => world.collect());
  await world.reopen();
  expect(await world.collect()).toMatchObject({ stopped: { code: 'CLOCK_IN_DOUBT' } });
  const { host } = world.clocks;
  const reset = await world.repository.resetClock(dayOf(host));
  expect(reset).toEqual({ from: isoOf(host + YEARS), to: isoOf(host), reset: true });
  const again = { from: isoOf(host), to: isoOf(host), reset: false };
  expect(await world.repository.resetClock(dayOf(host))).toEqual(again);
  await world.reopen();
  expect(await world.repository.resetClock(dayOf(host))).toEqual(again);
  expect(await world.collect()).toMatchObject({ stopped: null });
});

test('locks end when they would have, or later: never earlier', async () => {
  world = await createMaintained({ lockDays: 30 });
  const before = await sealedFull(1, diskOf(1));
  const start = world.clocks.host;
  let wrong: RestorePointId;
  await believeWrongClocks(async () => {
    wrong = (await sealedFull(2, diskOf(1, 'b'))).restorePointId;
  });
  const untils = () => world.repository.listSealed().map(({ flags }) => flags.lockedUntil);
  // By wrong clocks the first one had ended.
  expect(untils()).toEqual([null, isoOf(start + YEARS + 30 * DAY_MS)]);
  await world.repository.resetClock(dayOf(world.clocks.host));
  expect(untils()).toEqual([isoOf(start + 30 * DAY_MS), isoOf(start + YEARS + 30 * DAY_MS)]);
  for (const id of [before.restorePointId, wrong!]) await expect(remove(id)).rejects.toEqual(held);
  await world.reopen();
  world.pass(30 * DAY_MS);
  await expect(remove(wrong!)).rejects.toEqual(held);
  await remove(before.restorePointId);
});

test('what lies in the trash begins its grace anew', async () => {
  world = await createMaintained();
  const old = await sealedFull(1, diskOf(1));
  await sealedFull(2, diskOf(1, 'b'));
  await remove(old.restorePointId);
  await world.collect();
  // Its grace is over in two hours, by clocks that are right.
  world.pass(DAY_MS - 2 * 3_600_000);
  await believeWrongClocks();
  await world.repository.resetClock(dayOf(world.clocks.host));
  for (const hours of [12, 23]) {
    world.pass(hours * 3_600_000);
    await world.collect();
    expect(world.trash(), `${hours} hours`).not.toEqual([]);
  }
  world.pass(2 * 3_600_000);
  await world.collect();
  expect(world.trash()).not.toContain(`0/manifests/${old.manifest.vm.vmId}/${old.restorePointId}`);
});

test('it is refused while the clocks do not agree, with one another or with whoever asks', async () => {
  world = await createMaintained();
  await believeWrongClocks(() => world.collect());
  const { host } = world.clocks;
  const kept = () => readFile(join(world.folder, 'state'), 'utf8');
  const state = await kept();
  const doubt = { code: 'CLOCK_IN_DOUBT' };
  for (const day of [-2, 2, YEARS / DAY_MS])
    await expect(world.repository.resetClock(dayOf(host + day * DAY_MS))).rejects.toMatchObject(doubt);
  for (const day of ['', 'today', '2026-13-01', '24.11.2026'])
    await expect(world.repository.resetClock(day)).rejects.toMatchObject({ code: 'BAD_REQUEST' });
  for (const server of [null, host + 2 * DAY_MS, host + YEARS]) {
    world.clocks.server = server;
    await expect(world.repository.resetClock(dayOf(host))).rejects.toMatchObject(doubt);
  }
  expect(await kept()).toBe(state);
  world.clocks.server = host;
  await expect(world.repository.resetClock(dayOf(host))).resolves.toMatchObject({ reset: true });
});
