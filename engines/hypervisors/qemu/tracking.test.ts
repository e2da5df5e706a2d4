/**
 * What becomes of change tracking when VMs are stopped, killed, moved between on and off, and when their disks are not
 * what they were. Each session compares what was read with the bytes the VM had at the instant.
 */
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { lineageId, proxyId } from '../../../schema/domain/ids.ts';
import { qemuImg } from '../../../tests/fixtures/qemu-machine.ts';
import {
  keyed,
  KIB,
  lineage,
  makeQemuWorld,
  MIB,
  type QemuWorld,
  runOf,
  type Session,
  usesOf,
  vmRef,
  type WorldOptions,
} from '../../../tests/fixtures/qemu-world.ts';

const reader = proxyId('p1');
let world: QemuWorld;
afterEach(async () => {
  await world.close();
});
const make = async (options: WorldOptions & { off?: boolean } = {}): Promise<void> => {
  world = await makeQemuWorld(options);
};
const tracked = ['changes TRACKED', 'changes TRACKED'];
const lost = ['compare TRACKING_LOST', 'compare TRACKING_LOST'];

describe('over the life of a VM', () => {
  it('increments read what changed and nothing else, session after session', async () => {
    await make();
    let last = await world.sealedOnce();
    for (const index of [2, 3, 4]) {
      const next = await world.session(index, last);
      expect(usesOf(next)).toEqual(tracked);
      for (const [key, bytes] of next.readBytes) {
        expect(bytes, key).toBeGreaterThan(0);
        // Two writes of 20 KiB at most since the last one, in blocks of 64 KiB.
        expect(bytes, key).toBeLessThanOrEqual(4 * 64 * KIB);
      }
      last = next;
      await world.writeAll();
    }
    await world.expectOnly(last);
  });

  it('an idle VM has nothing to read', async () => {
    await make();
    const first = await world.sealedOnce();
    const second = await world.session(2, first);
    const quiet = await world.session(3, second, { seal: false });
    expect(Math.max(...quiet.readBytes.values())).toBeLessThanOrEqual(64 * KIB);
  });

  it('goes on when the VM is started again, and when it is backed up while it is off', async () => {
    await make();
    const first = await world.sealedOnce();
    await world.quit();
    await world.writeAll();
    const second = await world.session(2, first);
    expect(usesOf(second)).toEqual(tracked);
    await world.writeAll();
    await world.start();
    await world.writeAll();
    const third = await world.session(3, second);
    expect(usesOf(third)).toEqual(tracked);
    await world.writeAll();
    await world.quit();
    const fourth = await world.session(4, third);
    expect(usesOf(fourth)).toEqual(tracked);
    await world.start();
    await world.expectOnly(fourth);
  });

  it('is lost when QEMU is killed; the next session compares, the one after it tracks', async () => {
    await make();
    const first = await world.sealedOnce();
    await world.kill();
    await world.start();
    expect(await world.verdicts(first.point)).toEqual({ d0: lost[0], d1: lost[0] });
    const second = await world.session(2, first);
    expect(usesOf(second)).toEqual(lost);
    await world.writeAll();
    const third = await world.session(3, second);
    expect(usesOf(third)).toEqual(tracked);
    await world.expectOnly(third);
  });

  it('a bitmap that was not closed in order is not believed, and dropped with the next seal', async () => {
    await make();
    const first = await world.sealedOnce();
    await world.quit();
    await world.start();
    await world.writeAll();
    await world.kill();
    await world.start();
    expect((await world.bitmaps())['d0']).toMatchObject([{ inconsistent: true }]);
    const verdicts = await world.provider.judgeBase(vmRef, first.point);
    expect(verdicts[0]).toMatchObject({
      use: 'compare',
      reason: { message: expect.stringContaining('not closed in order') },
    });
    const second = await world.session(2, first);
    expect(usesOf(second)).toEqual(lost);
    await world.expectOnly(second);
  });

  it('a guest that powers itself off in the middle fails the session, and costs no tracking', async () => {
    await make();
    const first = await world.sealedOnce();
    await world.create(world.spec(2, first.point));
    await world.writeAll();
    await world.quit();
    await expect(world.provider.releaseCheckpoint(runOf(2))).rejects.toMatchObject({ code: 'CHECKPOINT_LOST' });
    await expect(world.provider.releaseCheckpoint(runOf(2))).rejects.toMatchObject({ code: 'CHECKPOINT_LOST' });
    await world.provider.discardReferencePoint(runOf(2));
    await world.writeAll();
    const third = await world.session(3, first);
    expect(usesOf(third)).toEqual(tracked);
    await world.start();
    await world.expectOnly(third);
  });

  it('QEMU killed in the middle: said so at each verb, nothing left, then compared', async () => {
    await make();
    const first = await world.sealedOnce();
    await world.create(world.spec(2, first.point));
    await world.kill();
    const access = world.provider.openAccess(runOf(2), keyed('d0'), reader);
    await expect(access).rejects.toMatchObject({ code: 'CHECKPOINT_LOST' });
    await world.start();
    expect(await world.provider.findCheckpoint(runOf(2))).toBeNull();
    await expect(world.create(world.spec(2, first.point))).rejects.toMatchObject({ code: 'CHECKPOINT_LOST' });
    await expect(world.provider.releaseCheckpoint(runOf(2))).rejects.toMatchObject({ code: 'CHECKPOINT_LOST' });
    await world.provider.discardReferencePoint(runOf(2));
    const third = await world.session(3, first);
    expect(usesOf(third)).toEqual(lost);
    await world.expectOnly(third);
  });
});

describe('a disk that is not what it was', () => {
  it('added: read in full, the others as ever', async () => {
    await make();
    const first = await world.sealedOnce();
    await world.quit();
    const file = join(world.folder, 'd2.img');
    await qemuImg('create', '-q', '-f', 'qcow2', file, '3M');
    world.disks.push({ key: 'd2', file, format: 'qcow2' });
    world.restartWorker();
    await world.start();
    await world.writeAll();
    const second = await world.session(2, first);
    expect(usesOf(second)).toEqual([...tracked, 'full NEW_DISK']);
    await world.writeAll();
    expect(usesOf(await world.session(3, second))).toEqual([...tracked, 'changes TRACKED']);
  });

  it('removed: left out, and said so', async () => {
    await make({ configured: false });
    const first = await world.sealedOnce();
    await world.quit();
    const gone = world.disks.pop()!;
    await world.start();
    const disks = [keyed('d0'), keyed(gone.key)];
    const second = await world.session(2, first, { over: { disks: disks.slice(0, 1) } });
    expect(usesOf(second)).toEqual(['changes TRACKED']);
    const checkpoint = await world.create(world.spec(3, second.point, { disks }));
    expect(checkpoint.leftOut).toEqual([{ diskKey: gone.key, why: expect.objectContaining({ code: 'NOT_FOUND' }) }]);
  });

  it('resized: compared', async () => {
    await make();
    const first = await world.sealedOnce();
    await world.machine.monitor.execute('block_resize', { 'node-name': 'd0', size: 6 * MIB });
    await world.write('d0', { offset: 5 * MIB, length: 64 * KIB });
    const second = await world.session(2, first);
    expect(usesOf(second)).toEqual(['compare DISK_RESIZED', 'changes TRACKED']);
    await world.writeAll();
    const third = await world.session(3, second);
    expect(usesOf(third)).toEqual(tracked);
    await world.expectOnly(third);
  });

  it('replaced while the VM was off: compared, and its identity is another', async () => {
    await make();
    const first = await world.sealedOnce();
    await world.quit();
    await world.replaceImage('d1');
    expect(await world.verdicts(first.point)).toEqual({ d0: 'changes TRACKED', d1: 'compare DISK_REPLACED' });
    await world.start();
    const second = await world.session(2, first);
    expect(usesOf(second)).toEqual(['changes TRACKED', 'compare DISK_REPLACED']);
    const identity = ({ checkpoint }: Session) => checkpoint.disks.map((disk) => disk.identity);
    expect(identity(second)[0]).toBe(identity(first)[0]);
    expect(identity(second)[1]).not.toBe(identity(first)[1]);
  });

  it('overwritten by an older copy of itself: what the copy remembers is right, or it is compared', async () => {
    await make();
    const first = await world.sealedOnce();
    await world.quit();
    const copies = await Promise.all(
      world.disks.map(async ({ file }) => {
        await qemuImg('convert', '-f', 'qcow2', '-O', 'qcow2', '--bitmaps', file, `${file}.copy`);
        return [`${file}.copy`, file] as const;
      }),
    );
    await world.start();
    await world.writeAll();
    const second = await world.session(2, first);
    await world.quit();
    for (const [copy, file] of copies) await rename(copy, file);
    await world.start();
    expect(usesOf(await world.session(3, second))).toEqual(['compare DISK_REPLACED', 'compare DISK_REPLACED']);
  });

  it('under an external snapshot: compared under its own name, also when the snapshot is gone again', async () => {
    await make();
    const first = await world.sealedOnce();
    const overlay = join(world.folder, 'overlay.qcow2');
    const snapshot = { 'node-name': 'd0', 'snapshot-file': overlay, 'snapshot-node-name': 'over', format: 'qcow2' };
    await world.machine.monitor.execute('blockdev-snapshot-sync', snapshot);
    const base = world.disks[0]!.file;
    world.disks[0]!.file = overlay;
    await world.writeAll();
    expect(await world.verdicts(first.point)).toEqual({ d0: 'compare EXTERNAL_SNAPSHOT', d1: 'changes TRACKED' });
    const second = await world.session(2, first);
    expect(usesOf(second)).toEqual(['compare EXTERNAL_SNAPSHOT', 'changes TRACKED']);
    await world.writeAll();
    const third = await world.session(3, second);
    expect(usesOf(third)).toEqual(tracked);
    await world.machine.monitor.execute('block-commit', { 'job-id': 'c', device: 'over' });
    await world.machine.monitor.event(({ event }) => event === 'BLOCK_JOB_READY');
    await world.machine.monitor.execute('job-complete', { id: 'c' });
    await world.machine.monitor.event(({ event }) => event === 'BLOCK_JOB_COMPLETED');
    world.disks[0]!.file = base;
    await world.writeAll();
    const fourth = await world.session(4, third);
    expect(fourth.checkpoint.disks.map(({ diskKey }) => diskKey)).toEqual(['d0', 'd1']);
    expect(usesOf(fourth)[0]).toMatch(/^compare/);
    expect(usesOf(fourth)[1]).toBe('changes TRACKED');
    await world.expectOnly(fourth);
  });

  it('the same, but opened with options that a file name cannot say: still the same', async () => {
    await make({ disks: [{ key: 'd0' }], configured: false });
    const first = await world.sealedOnce();
    await world.quit();
    const image = { driver: 'file', filename: world.disk('d0').file };
    const node = { driver: 'qcow2', 'node-name': 'd0', file: image, backing: 'below' };
    const below = { driver: 'null-co', 'node-name': 'below', size: 4 * MIB, 'read-zeroes': true };
    const blockdevs = [below, node].flatMap((one) => ['-blockdev', JSON.stringify(one)]);
    await world.startWith([...blockdevs, '-device', 'virtio-blk-pci,drive=d0,id=dev-d0'], []);
    expect(await world.verdicts(first.point)).toEqual({ d0: 'changes TRACKED' });
    expect(usesOf(await world.session(2, first))).toEqual(['changes TRACKED']);
  });

  it('user snapshots are counted, and do not disturb', async () => {
    await make({ off: true });
    await qemuImg('snapshot', '-c', 'before', world.disk('d0').file);
    await world.start();
    const first = await world.sealedOnce();
    expect((await world.provider.inspectVm(vmRef)).userCheckpoints).toBe(1);
    expect(usesOf(await world.session(2, first))).toEqual(tracked);
  });
});

describe('a map that cannot be believed', () => {
  const bitmapOf = (session: Session): string => session.point!.disks[0]!.trackingId;
  const qmp = (command: string, args: Record<string, unknown>): Promise<unknown> =>
    world.machine.monitor.execute(command, args);
  const expectDoubted = async (first: Session, why: string): Promise<void> => {
    const [verdict] = await world.provider.judgeBase(vmRef, first.point);
    expect(verdict).toMatchObject({ use: 'compare', reason: { message: expect.stringContaining(why) } });
    const second = await world.session(2, first);
    expect(usesOf(second)).toEqual([lost[0], 'changes TRACKED']);
    await world.expectOnly(second);
  };

  it('one that was stopped by somebody', async () => {
    await make();
    const first = await world.sealedOnce();
    await qmp('block-dirty-bitmap-disable', { node: 'd0', name: bitmapOf(first) });
    await expectDoubted(first, 'has not recorded all the time');
  });

  it('one of another granularity', async () => {
    await make();
    const first = await world.sealedOnce();
    const named = { node: 'd0', name: bitmapOf(first) };
    await qmp('block-dirty-bitmap-remove', named);
    await qmp('block-dirty-bitmap-add', { ...named, granularity: 128 * KIB, persistent: true });
    await expectDoubted(first, 'counts in 131072 bytes');
  });

  it('one that was removed', async () => {
    await make();
    const first = await world.sealedOnce();
    await qmp('block-dirty-bitmap-remove', { node: 'd0', name: bitmapOf(first) });
    await expectDoubted(first, 'is not there any more');
  });

  it('one that somebody else uses', async () => {
    await make();
    const first = await world.sealedOnce();
    const socket = join(world.folder, 'theirs');
    await qmp('nbd-server-start', { addr: { type: 'unix', data: { path: socket } } });
    const bitmaps = [{ node: 'd0', name: bitmapOf(first) }];
    await qmp('block-export-add', { type: 'nbd', id: 'theirs', 'node-name': 'd0', name: 'x', bitmaps });
    const [verdict] = await world.provider.judgeBase(vmRef, first.point);
    expect(verdict).toMatchObject({ use: 'compare', reason: { message: expect.stringContaining('somebody else') } });
    await qmp('nbd-server-stop', {});
  });

  it('one that could be mended only by a map that missed something', async () => {
    await make();
    const first = await world.sealedOnce();
    const dead = await world.session(2, first, { seal: false });
    await qmp('block-dirty-bitmap-disable', { node: 'd0', name: bitmapOf(dead) });
    await world.writeAll();
    expect(await world.verdicts(first.point)).toEqual({ d0: lost[0], d1: 'changes TRACKED' });
    const third = await world.session(3, first);
    expect(usesOf(third)).toEqual([lost[0], 'changes TRACKED']);
    await world.expectOnly(third);
  });

  it('one that did not stop at the instant', async () => {
    await make();
    const first = await world.sealedOnce();
    const goesOn = { type: 'block-dirty-bitmap-enable', data: { node: 'd0', name: bitmapOf(first) } };
    world.restartWorker({ extraActions: () => Promise.resolve([goesOn]) });
    const second = await world.session(2, first);
    expect(usesOf(second)).toEqual([lost[0], 'changes TRACKED']);
    await world.expectOnly(second);
  });

  it('one that is of another lineage, or of no run at all', async () => {
    await make();
    const first = await world.sealedOnce();
    const other = lineageId('00000000000000bb');
    const foreign = await world.session(2, first, { over: { lineage: other } });
    expect(usesOf(foreign)).toEqual(['compare NO_BASE', 'compare NO_BASE']);
    expect(await world.verdicts(first.point)).toEqual({ d0: 'changes TRACKED', d1: 'changes TRACKED' });
    const forged = { ...first.point!, disks: foreign.point!.disks };
    expect(Object.values(await world.verdicts(forged))).toEqual(lost);
    await world.writeAll();
    expect(usesOf(await world.session(3, first))).toEqual(tracked);
  });
});

describe('lineages', () => {
  it('two on one VM know nothing of each other', async () => {
    await make();
    const over = { lineage: lineageId('00000000000000bb') };
    const ours = await world.sealedOnce();
    const theirs = await world.session(2, null, { over });
    await world.writeAll();
    const failed = await world.session(3, ours, { seal: false });
    await world.provider.discardReferencePoint(runOf(3));
    expect(usesOf(failed)).toEqual(tracked);
    await world.writeAll();
    const theirNext = await world.session(4, theirs, { over });
    expect(usesOf(theirNext)).toEqual(tracked);
    await world.writeAll();
    expect(usesOf(await world.session(5, ours))).toEqual(tracked);
    expect(Object.values(await world.verdicts(theirNext.point))).toEqual(tracked);
  });

  it('a commit that comes late drops nothing that is newer', async () => {
    await make();
    const first = await world.sealedOnce();
    const second = await world.session(2, first, { seal: false });
    await world.writeAll();
    const third = await world.session(3, second, { seal: false });
    await world.provider.commitReferencePoint(lineage, second.point!);
    expect(Object.values(await world.verdicts(third.point))).toEqual(tracked);
    await world.provider.commitReferencePoint(lineage, third.point!);
    await world.expectOnly(third);
  });
});
