/** When a disk is said to have stopped moving. */
import { expect, test } from 'vitest';
import { orderOf, TEST_DISK } from '../../tests/fixtures/mover/disks.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { restorePointId, runKey } from '../../schema/domain/ids.ts';
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
  const seams = { ...testSeams(), clock: { ...testSeams().clock, monotonic: () => nowMs } };
  return { seams, pass: (ms: number) => (nowMs += ms) };
}
const restoreOf = (seams: ReturnType<typeof clocked>['seams']) =>
  new RunningRestore(1, restoreOrder, { lowWater: 0, above: [] }, { laneCount: 1, seams });

test.each([
  ['restore', restoreOf],
  ['transfer', (seams: ReturnType<typeof clocked>['seams']) => new RunningTransfer(1, order, seams, { laneCount: 1 })],
])('a %s that waited long for a lane has not been still', (_what, of) => {
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
