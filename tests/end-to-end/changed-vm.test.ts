/**
 * A VM whose disks are not what they were: powered off, resized, added, replaced, QEMU killed. Changed block tracking is
 * used where it holds, and where it does not, the reason is told in the session, in the manifest and on the screen.
 */
import { execFileSync } from 'node:child_process';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { whyNoGuest } from '../fixtures/guest/start-guest.ts';
import { sampled } from '../fixtures/sampled.ts';
import { expectClean, modesOf, readOf, vmOf } from '../fixtures/world/expect-clean.ts';
import { expectRestored } from '../fixtures/world/expect-restored.ts';
import type { SessionReport } from '../fixtures/world/report.ts';
import { MIB, startWorld, type World } from '../fixtures/world/world.ts';

const why = await whyNoGuest();
/** A run of the tests plays one of them, unless it plays all: providers are tested with each. */
const changes = sampled(['resized', 'added and replaced'], 2);
let world: World;

type Shown = { manifest: { disks: { diskKey: string; mode: string; reason: { code: string; message: string } }[] } };

/** The reason in all places where a person or a program looks for it. */
async function expectTold(report: SessionReport, diskKey: string, mode: string, code: string): Promise<void> {
  const { disks, restorePointId } = vmOf(report);
  const disk = disks.find((one) => one.diskKey === diskKey)!;
  expect(disk).toMatchObject({ mode, reason: { code } });
  const { manifest } = await world.json<Shown>(['restore-point', 'show', restorePointId!]);
  const kept = manifest.disks.find((one) => one.diskKey === diskKey);
  expect(kept).toMatchObject({ mode, reason: disk.reason });
  const { stdout } = await world.call('session', 'show', report.sessionId);
  expect(stdout).toContain(disk.reason!.message);
}

/** A running guest is backed up with the tests' own copies, restored, and compared. */
async function backUpWhole(label: string, codes: readonly number[]): Promise<SessionReport> {
  const { report, copies } = await world.runWithCopies(label, codes);
  await expectRestored(world, vmOf(report).restorePointId!, copies);
  await expectClean(world, vmOf(report).runKey);
  return report;
}

const image = (...args: string[]): Buffer => execFileSync('qemu-img', args);
const fileOf = (key: string): string => world.disks.find((disk) => disk.key === key)!.file;
const writeInto = (file: string, command: string): void =>
  void execFileSync('qemu-io', ['-f', 'qcow2', '-c', command, file]);

async function boot(): Promise<void> {
  await world.startGuest();
  await (await world.agent()).run('dd if=/dev/urandom of=/mnt/data/since-boot bs=1M count=1 2>/dev/null; sync');
}

describe.skipIf(why !== null)(`a VM that changes${why ? ` (left out: ${why})` : ''}`, () => {
  beforeAll(async () => {
    const disks = [
      { key: 'data', sizeMib: 64, filesystem: 'ext4' },
      { key: 'second', sizeMib: 32, filesystem: 'none' },
    ] as const;
    world = await startWorld({ disks: [...disks], job: ['consistency: prefer'] });
    const report = await backUpWhole('first', [0]);
    expect(modesOf(report)).toEqual(['full', 'full']);
  });
  afterAll(() => world?.close());

  test('powered off: its images are read, and only what was written to them since', async () => {
    await world.endGuest('quit');
    writeInto(fileOf('second'), 'write -q -P 7 5M 1M');
    const report = await world.runJob([3]);
    expect(modesOf(report)).toEqual(['cbt', 'cbt']);
    expect(vmOf(report).consistency).toBe('crash');
    expect(readOf(report)).toBeLessThan(16 * MIB);
    const copies = { data: path.join(world.root, 'data.off'), second: path.join(world.root, 'second.off') };
    for (const [key, copy] of Object.entries(copies)) image('convert', '-O', 'raw', fileOf(key), copy);
    await expectRestored(world, vmOf(report).restorePointId!, copies);
    expect(await world.sql('select kind from leases')).toEqual([]);
    for (const { file } of world.disks) execFileSync('qemu-img', ['check', '-q', file]);
  });

  test('powered on again: tracking goes on where it was', async () => {
    await boot();
    const report = await backUpWhole('on', [0]);
    expect(modesOf(report)).toEqual(['cbt', 'cbt']);
    expect(readOf(report)).toBeLessThan(24 * MIB);
  });

  test.runIf(changes.includes('resized'))('a resized disk is compared, the others are not', async () => {
    const second = world.disks.find((disk) => disk.key === 'second')!;
    second.sizeBytes = 45 * MIB + 512;
    await (await world.monitor()).execute('block_resize', { 'node-name': 'second', size: second.sizeBytes });
    const report = await backUpWhole('resized', [3]);
    expect(modesOf(report)).toEqual(['cbt', 'comparison']);
    await expectTold(report, 'second', 'comparison', 'DISK_RESIZED');
  });

  test.runIf(changes.includes('added and replaced'))('an added disk is read in full, the others are not', async () => {
    await world.endGuest('quit');
    const file = path.join(world.root, 'third.qcow2');
    world.disks.push({ key: 'third', file, format: 'qcow2', sizeBytes: 24 * MIB, filesystem: 'ext4' });
    expect((await world.apply()).code).toBe(0);
    await boot();
    const report = await backUpWhole('added', [0]);
    expect(modesOf(report)).toEqual(['cbt', 'cbt', 'full']);
    await expectTold(report, 'third', 'full', 'NEW_DISK');
  });

  test.runIf(changes.includes('added and replaced'))(
    'an image that was replaced is compared, the others are not',
    async () => {
      await world.endGuest('quit');
      const file = fileOf('third');
      await rm(file);
      image('create', '-q', '-f', 'qcow2', file, `${24 * MIB}`);
      writeInto(file, 'write -q -P 9 2M 3M');
      world.disks[2]!.filesystem = 'none';
      await boot();
      const report = await backUpWhole('replaced', [3]);
      expect(modesOf(report)).toEqual(['cbt', 'cbt', 'comparison']);
      await expectTold(report, 'third', 'comparison', 'DISK_REPLACED');
    },
  );

  test('after QEMU was killed, all disks are compared; then tracking is used again', async () => {
    await world.endGuest('kill');
    await boot();
    const report = await backUpWhole('killed', [3]);
    expect(modesOf(report)).toEqual(world.disks.map(() => 'comparison'));
    for (const { key } of world.disks) await expectTold(report, key, 'comparison', 'TRACKING_LOST');
    expect(modesOf(await backUpWhole('again', [0]))).toEqual(world.disks.map(() => 'cbt'));
  });
});
