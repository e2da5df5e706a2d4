import { expect, it } from 'vitest';
import type { Clock } from '../../schema/domain/seams.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { type HeldRepository, RepositoryHolder } from './repository-holder.ts';

let nowMs = 0;
const clock: Clock = { now: () => nowMs, monotonic: () => nowMs, sleep: () => Promise.resolve() };
const { log } = testSeams();

function holderOf(results: (Error | null)[]) {
  const told = { opened: 0, closed: 0 };
  const open = async (): Promise<HeldRepository> => {
    told.opened += 1;
    const failure = results.shift();
    await Promise.resolve();
    if (failure) throw failure;
    const close = async (): Promise<void> => void (told.closed += 1);
    const repository = {} as HeldRepository['repository'];
    return {
      repository,
      endpoint: { unix: '/target' },
      signGrant: () => '',
      space: () => Promise.resolve(null),
      close,
    };
  };
  return { told, holder: new RepositoryHolder({ repositoryId: 'main', open, clock, log }) };
}

it('opens once for all who ask, and closes once', async () => {
  const { told, holder } = holderOf([null]);
  const held = await Promise.all([holder.open(), holder.open(), holder.open()]);
  expect(new Set(held).size).toBe(1);
  expect(told).toEqual({ opened: 1, closed: 0 });
  await holder.close();
  expect(told).toEqual({ opened: 1, closed: 1 });
});

it('says why it cannot, tries again at most each 2 s, and then serves', async () => {
  const inUse = new TidemarkError('REPOSITORY_IN_USE', 'process 7 owns it');
  const { told, holder } = holderOf([inUse, inUse, null]);
  await Promise.all([holder.open(), holder.open()].map((each) => expect(each).rejects.toBe(inUse)));
  nowMs += 1999;
  await expect(holder.open()).rejects.toBe(inUse);
  expect(told.opened).toBe(1);
  nowMs += 1;
  await expect(holder.open()).rejects.toBe(inUse);
  expect(told.opened).toBe(2);
  await holder.close();
  nowMs += 2000;
  expect((await holder.open()).endpoint).toEqual({ unix: '/target' });
  expect(told).toEqual({ opened: 3, closed: 0 });
});
