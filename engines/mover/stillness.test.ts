/** When a disk is said to have stopped moving. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { orderOf, TEST_DISK } from '../../tests/fixtures/mover/disks.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { restorePointId, runKey } from '../../schema/domain/ids.ts';
import { brakeCalls, Brakes } from './brakes.ts';
import { RunningRestore } from './restore-client/running-restore.ts';
import { RunningTransfer } from './source/running-transfer.ts';
import { STORAGE_SILENCE_MS } from './stillness.ts';

const MIB = 1024 * 1024;
const endpoint = { unix: '/nowhere' };
const order = orderOf({ disk: { file: '/nowhere' }, sizeBytes: MIB, blockSize: MIB, endpoint });
const run = runKey('restore00000');
const restoreOrder = {
  run,
  restorePointId: restorePointId('0123456789abcdef0123456789abcdef'),
  diskKey: TEST_DISK,
  endpoint,
  target: {
    run,
    diskKey: TEST_DISK,
    sizeBytes: MIB,
    cursorFile: '/nowhere',
    data: { via: 'file' as const, path: '/nowhere' },
  },
  signal: order.signal,
};

function clocked() {
  let nowMs = 0;
  const seams = {
    ...testSeams(),
    clock: { ...testSeams().clock, monotonic: () => nowMs, sleep: async () => undefined },
  };
  return { seams, pass: (ms: number) => (nowMs += ms) };
}
type Clocked = ReturnType<typeof clocked>['seams'];
const brakes = [{ name: 'host h1', readBytesPerSecond: null, latencyMs: 20 }];
const restoreOf = (seams: Clocked, id = 1): RunningRestore => {
  const braked = { ...restoreOrder, target: { ...restoreOrder.target, brakes } };
  return new RunningRestore(id, braked, { lowWater: 0, above: [] }, { laneCount: 1, seams });
};
const transferOf = (seams: Clocked, id = 1): RunningTransfer =>
  new RunningTransfer(id, { ...order, access: { ...order.access, brakes } }, seams, { laneCount: 1 });
const kinds = [
  ['restore', restoreOf],
  ['transfer', transferOf],
] as const;

test.each(kinds)('a %s that waited long for a lane has not been still', (_what, of) => {
  const { seams, pass } = clocked();
  const work = of(seams);
  pass(2 * STORAGE_SILENCE_MS);
  expect(work.take()).not.toBeNull();
  expect(work.stuck()).toBeNull();
  pass(STORAGE_SILENCE_MS);
  expect(work.stuck()).toMatchObject({ code: 'UNREACHABLE' });
});

test('a cursor that could not be written does not end the watch over the last flush', () => {
  const { seams, pass } = clocked();
  const restore = restoreOf(seams);
  restore.done(restore.take()!, { receivedBytes: 0, writtenBytes: 0 });
  restore.fail(new Error('no cursor'));
  expect(restore.stuck()).toBeNull();
  pass(STORAGE_SILENCE_MS);
  expect(restore.stuck()).toMatchObject({ code: 'UNREACHABLE', message: expect.stringContaining('made durable') });
});

describe.each(kinds)('a %s under a brake for latency', (_what, of) => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] }));
  afterEach(() => vi.useRealTimers());

  /** Disks 1 and 2 in work, a lane each, on storage so slow that its brake lets one request be under way. */
  async function braked() {
    const { seams, pass } = clocked();
    const all = new Brakes(seams.clock, 'read');
    all.configure(brakes);
    const works = [of(seams, 1), of(seams, 2)];
    for (const work of works) work.take();
    const calls = brakeCalls(all, (id) => works[id - 1]);
    const begin = (id: number): Promise<number> => calls.begin(id, id, MIB);
    const end = (id: number, request: number): void => calls.end(id, { request, latencyMs: 60 });
    pass(1000);
    end(2, await begin(2));
    // One alone was too slow: there are pauses from now on, and requests wait.
    expect(all.reasonOf(brakes)).toBe('brake: latency of host h1 is 60 ms');
    const passWaiting = (ms: number): void => {
      for (let at = 0; at < ms; at += 60_000) {
        pass(60_000);
        vi.advanceTimersByTime(60_000);
      }
    };
    return { works, begin, end, passWaiting, endLane: (lane: number) => all.endLane(lane) };
  }

  test('ends when its storage hangs; who waits for a place goes on when it has', async () => {
    const { works, begin, passWaiting, endLane } = await braked();
    await begin(1);
    void begin(1);
    const waiting = begin(2);
    expect(works.map((work) => work.stuck())).toEqual([null, null]);
    passWaiting(STORAGE_SILENCE_MS);
    expect(works.map((work) => work.stuck())).toMatchObject([{ code: 'UNREACHABLE' }, null]);
    endLane(1);
    await waiting;
    // Its own storage may hang, too.
    void begin(2);
    passWaiting(STORAGE_SILENCE_MS);
    expect(works[1]!.stuck()).toMatchObject({ code: 'UNREACHABLE' });
  });

  test('goes on while its storage answers, however late', async () => {
    const { works, begin, end, passWaiting } = await braked();
    let next = begin(1);
    for (let answers = 0; answers < 4; answers += 1) {
      const request = await next;
      next = begin(1);
      passWaiting(STORAGE_SILENCE_MS * 0.75);
      end(1, request);
      expect(works[0]!.stuck()).toBeNull();
    }
    await next;
    void begin(1);
    passWaiting(STORAGE_SILENCE_MS);
    expect(works[0]!.stuck()).toMatchObject({ code: 'UNREACHABLE' });
  });
});
