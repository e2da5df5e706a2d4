import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, stat, truncate } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { WINDOW_BYTES } from '../../schema/domain/extents.ts';
import { diskKey, restorePointId, runKey } from '../../schema/domain/ids.ts';
import { orderOf, seeded, writeRandomDisk } from '../../tests/fixtures/mover/disks.ts';
import { MemoryRepository } from '../../tests/fixtures/mover/memory-repository.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { createRestorePool } from '../mover/restore-client/pool.ts';
import { createSourcePool } from '../mover/source/pool.ts';
import { findProcesses } from '../stack/process-identity.ts';
import { type MoverTarget, startMoverTarget } from '../mover/target/mover-target.ts';
import { createTargets, discardTargets, type TargetRequest } from './targets.ts';

const MIB = 1024 * 1024;
const KILLS = 4;
const DATA_BYTES = 3 * WINDOW_BYTES;
const sizeBytes = 2 * DATA_BYTES + 4711;
const fixture = (name: string): URL => new URL(`../../tests/fixtures/mover/${name}.ts`, import.meta.url);
/** Of its own: what a run left is looked for on the whole machine. */
const run = runKey(randomBytes(6).toString('hex'));
const out = (): string => path.join(folder, 'out');
let folder: string;
let target: MoverTarget;
let child: ChildProcess | null = null;

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'td-resume-'));
  const repository = new MemoryRepository(path.join(folder, 'ledger'));
  target = await startMoverTarget({
    listen: { unix: path.join(folder, 'sock', 'mover') },
    laneCount: 1,
    laneEntry: fixture('target-lane'),
    laneData: { folder },
    registrar: repository,
    restoreSource: repository.restoreSource(sizeBytes, MIB),
    seams: testSeams(),
  });
});
afterEach(async () => {
  child?.kill('SIGKILL');
  await target.close();
  await discardTargets({ run, folder: out() });
  await rm(folder, { recursive: true, force: true });
});

test.each(['raw', 'qcow2'] as const)(
  'a restore killed again and again comes out byte for byte: %s',
  async (format) => {
    const { next } = seeded();
    const disk = path.join(folder, 'disk');
    // The second half is empty.
    await writeRandomDisk(disk, DATA_BYTES, next);
    await truncate(disk, sizeBytes);
    const source = createSourcePool({ laneCount: 2, laneEntry: fixture('source-lane'), seams: testSeams() });
    await source.transfer(orderOf({ disk: { file: disk }, sizeBytes, blockSize: MIB, endpoint: target.endpoint }));
    await source.close();
    const disks = [{ diskKey: diskKey('d0'), sizeBytes, name: 'disk.img' }];
    const request: TargetRequest = { run, folder: out(), allowedFolders: [folder], format, disks };
    let isBegun = false;
    for (let kill = 0; kill < KILLS && !(await isFinished()); kill += 1) {
      child = spawnRestore(request);
      await Promise.race([once(child, 'exit'), sleep(200 + next(1200))]);
      if (child.exitCode !== null) break;
      child.kill('SIGKILL');
      await once(child, 'exit');
      isBegun ||= (await filesOf(out())).some((name) => name.endsWith('.cursor'));
    }
    if (!(await isFinished())) {
      const { windowsRestored } = await restoreIn(request);
      if (isBegun) expect(windowsRestored).toBeLessThan(7);
    }
    expect(await isFinished()).toBe(true);
    const file = path.join(out(), 'disk.img');
    const raw = format === 'raw' ? file : path.join(folder, 'flat');
    if (format === 'qcow2') execFileSync('qemu-img', ['convert', '-O', 'raw', file, raw]);
    const restored = await readFile(raw);
    expect(restored.subarray(0, sizeBytes).equals(await readFile(disk))).toBe(true);
    if (format === 'raw') expect((await stat(file)).blocks * 512).toBeLessThanOrEqual(DATA_BYTES + MIB);
  },
  90_000,
);

const filesOf = (of: string): Promise<string[]> => readdir(of).catch(() => []);
/** It may be just when its process is killed. */
const isFinished = async (): Promise<boolean> => (await filesOf(out())).join() === 'disk.img';

async function restoreIn(request: TargetRequest): Promise<{ windowsRestored: number }> {
  child = spawnRestore(request);
  const pieces: Buffer[] = [];
  child.stdout!.on('data', (piece: Buffer) => pieces.push(piece));
  await once(child, 'close');
  return JSON.parse(Buffer.concat(pieces).toString()) as { windowsRestored: number };
}

const spawnRestore = (request: TargetRequest): ChildProcess =>
  spawn(
    process.execPath,
    [fixture('restore-process').pathname, JSON.stringify({ endpoint: target.endpoint, request })],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );

test('a restore whose target hangs can be stopped', async () => {
  const disk = path.join(folder, 'disk');
  await writeRandomDisk(disk, DATA_BYTES, seeded().next, 1);
  await truncate(disk, sizeBytes);
  const source = createSourcePool({ laneCount: 2, laneEntry: fixture('source-lane'), seams: testSeams() });
  await source.transfer(orderOf({ disk: { file: disk }, sizeBytes, blockSize: MIB, endpoint: target.endpoint }));
  await source.close();
  const disks = [{ diskKey: diskKey('d0'), sizeBytes, name: 'disk.img' }];
  const [access] = await createTargets({ run, folder: out(), allowedFolders: [folder], format: 'qcow2', disks });
  const serving = (word: string): boolean => word.includes(folder);
  const [daemon] = findProcesses(([tool, ...words]) => tool === 'qemu-storage-daemon' && words.some(serving));
  const laneEntry = new URL('../../workers/lanes/restore-lane.ts', import.meta.url);
  const pool = createRestorePool({ laneCount: 1, laneEntry, seams: testSeams() });
  const stop = new AbortController();
  const restore = pool.restoreDisk({
    run,
    restorePointId: restorePointId('0123456789abcdef0123456789abcdef'),
    diskKey: diskKey('d0'),
    endpoint: target.endpoint,
    target: access!,
    signal: stop.signal,
    onProgress: (p) => {
      if (p.bytesDone < DATA_BYTES) return;
      // Nothing is left to write but zeros, so it hangs in a flush.
      process.kill(daemon!.pid, 'SIGSTOP');
      setTimeout(() => stop.abort(new Error('enough')), 500);
    },
  });
  await expect(restore).rejects.toThrow('enough');
  await pool.close();
  process.kill(daemon!.pid, 'SIGCONT');
});
