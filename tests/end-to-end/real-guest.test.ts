/** Stages (c) and (d): a real guest is backed up, changes, is backed up again, and comes back byte for byte. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { whyNoGuest } from '../fixtures/guest/start-guest.ts';
import type { TestAgent } from '../fixtures/guest/test-agent.ts';
import { startRecords, stopRecords } from '../fixtures/guest/records.ts';
import { armDirty, dirtyInBlocks } from '../fixtures/world/dirty-at-instant.ts';
import { expectRestored, needsRecovery, recordsIn } from '../fixtures/world/expect-restored.ts';
import { qemuLeftovers, scratchFiles } from '../fixtures/world/leftovers.ts';
import type { SessionReport } from '../fixtures/world/report.ts';
import { MIB, startWorld, type World } from '../fixtures/world/world.ts';

const why = await whyNoGuest();
let world: World;
let agent: TestAgent;
beforeAll(async () => {
  if (why !== null) return;
  world = await startWorld();
  agent = await world.agent();
});
afterAll(async () => {
  await world?.close();
});

/** The bare disk's device in the guest, by its serial number. */
const findSecond = 'for d in /sys/block/vd*; do [ "$(cat $d/serial)" = second ] && SECOND=/dev/${d##*/}; done;';
const vmOf = (report: SessionReport) => report.session!.vms[0]!;
const modes = (report: SessionReport): string[] => vmOf(report).disks.map((disk) => disk.mode ?? '');

type Manifest = { manifest: { consistency: { reached: string; frozenMs: number } } };

/** Nothing of ours but the reference point of the last sealed restore point. */
async function expectOnlyTheReferencePoint(): Promise<void> {
  const left = await qemuLeftovers(await world.monitor());
  expect(left).toMatchObject({ jobs: [], exports: [], nodes: [] });
  expect(Object.values(left.bitmaps).map((names) => names.length)).toEqual(world.disks.map(() => 1));
  expect(await scratchFiles(world.scratch)).toEqual([]);
  expect(await world.sql('select * from leases')).toEqual([]);
}

test.skipIf(why !== null)(
  `a full, with the guest frozen for the instant${why ? ` (left out: ${why})` : ''}`,
  async () => {
    await agent.run(
      'mkdir /mnt/data/files && for i in $(seq 40); do head -c 1000000 /dev/urandom > /mnt/data/files/$i; done',
    );
    await agent.run('head -c 30000000 /dev/urandom | dd of=$SECOND bs=1M seek=20 2>/dev/null; sync');
    await startRecords(agent, 'data');
    const { report, copies } = await world.runWithCopies('full');
    await stopRecords(agent);
    expect(report.result).toBe('Success');
    expect(modes(report)).toEqual(['full', 'full']);
    const vm = vmOf(report);
    expect(vm.consistency).toBe('filesystem');
    const shown = await world.json<Manifest>(['restore-point', 'show', vm.restorePointId!]);
    expect(shown.manifest.consistency.reached).toBe('filesystem');
    expect(shown.manifest.consistency.frozenMs).toBeLessThan(10_000);
    expect(await needsRecovery(copies['data']!)).toBe(false);
    const files = await expectRestored(world, vm.restorePointId!, copies);
    expect(await recordsIn(files['data']!)).toBeGreaterThan(0);
    await expectRestored(world, vm.restorePointId!, copies, 'qcow2');
    await expectOnlyTheReferencePoint();
  },
);

test.skipIf(why !== null)('an increment reads what changed and nothing else', async () => {
  await agent.run(
    'for i in 3 17 28; do head -c 1000000 /dev/urandom > /mnt/data/files/$i; done; rm /mnt/data/files/5; sync',
  );
  await agent.run(`${findSecond} head -c 3000000 /dev/urandom | dd of=$SECOND bs=1M seek=70 2>/dev/null; sync`);
  const also = await armDirty(world, 'inc');
  const { report, copies } = await world.runWithCopies('inc', [0], also);
  expect(report.result).toBe('Success');
  expect(modes(report)).toEqual(['cbt', 'cbt']);
  const dirty = await dirtyInBlocks(world, 'inc', MIB);
  for (const disk of vmOf(report).disks) {
    expect(disk.readBytes, `read of ${disk.diskKey}`).toBeLessThanOrEqual(dirty[disk.diskKey]!);
    expect(disk.readBytes, `read of ${disk.diskKey}`).toBeGreaterThan(0);
    // QEMU's own bitmap forgot nothing: of what it calls unchanged so much was looked at.
    expect(disk.audit, `audit of ${disk.diskKey}`).toMatchObject({ sampled: 64, mismatched: 0 });
    const { sizeBytes, ...classes } = disk.conservation!;
    expect(Object.values(classes).reduce((sum, bytes) => sum + bytes, 0)).toBe(sizeBytes);
  }
  await expectRestored(world, vmOf(report).restorePointId!, copies);
  await expectOnlyTheReferencePoint();
});

test.skipIf(why !== null)('the first restore point is still what it was', async () => {
  const { restorePoints } = await world.json<{ restorePoints: { restorePointId: string }[] }>([
    'restore-point',
    'list',
  ]);
  expect(restorePoints).toHaveLength(2);
  const oldest = restorePoints.at(-1)!.restorePointId;
  const at = (key: string): string => `${world.root}/oracle/oracle-full-${key}.raw`;
  await expectRestoredAgain(oldest, { data: at('data'), second: at('second') });
});

async function expectRestoredAgain(restorePointId: string, copies: Record<string, string>): Promise<void> {
  const restored = await world.restore(restorePointId, 'again');
  const { expectSameBytes } = await import('../fixtures/oracle.ts');
  for (const disk of world.disks) await expectSameBytes(restored[disk.key]!, copies[disk.key]!);
}

test.skipIf(why !== null)('a guest that is idle costs almost nothing', async () => {
  const { report, copies } = await world.runWithCopies('idle');
  expect(modes(report)).toEqual(['cbt', 'cbt']);
  const read = vmOf(report).disks.reduce((sum, disk) => sum + disk.readBytes, 0);
  expect(read).toBeLessThan(16 * MIB);
  await expectRestored(world, vmOf(report).restorePointId!, copies);
});

test.skipIf(why !== null)(
  'a bitmap that lost what changed: the audit finds it, and no byte of it is lost',
  async () => {
    // Of 128 blocks 24 change and are forgotten: 64 samples cannot all miss them.
    await agent.run(`${findSecond} head -c 24000000 /dev/urandom | dd of=$SECOND bs=1M seek=30 2>/dev/null; sync`);
    const monitor = await world.monitor();
    const [name] = (await qemuLeftovers(monitor)).bitmaps['second']!;
    await monitor.execute('block-dirty-bitmap-clear', { node: 'second', name });
    const { report, copies } = await world.runWithCopies('lost', [3]);
    expect(report.events.filter(({ level }) => level === 'warning').map(({ code }) => code)).toEqual([
      'AUDIT_MISMATCH',
    ]);
    const { disks, restorePointId } = vmOf(report);
    expect(Object.fromEntries(disks.map(({ diskKey, mode }) => [diskKey, mode]))).toEqual({
      data: 'cbt',
      second: 'comparison',
    });
    for (const { diskKey, audit } of disks) {
      expect(audit!.sampled, diskKey).toBe(64);
      expect(audit!.mismatched > 0, diskKey).toBe(diskKey === 'second');
    }
    await expectRestored(world, restorePointId!, copies);
    // Newest first: this one was read whole, and the oldest does not rest on tracking.
    const { restorePoints } = await world.json<{ restorePoints: { suspect: boolean }[] }>(['restore-point', 'list']);
    expect(restorePoints.map(({ suspect }) => suspect)).toEqual([false, true, true, false]);
    await expectOnlyTheReferencePoint();
  },
);
