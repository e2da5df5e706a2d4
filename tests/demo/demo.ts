/**
 * `npm run demo [-- --keep]`: a real virtual machine is backed up, changes, is backed up again, and both restore points
 * come back byte for byte. Everything lives in one temporary folder; `--keep` leaves it all running.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { formatBytes } from '../../schema/domain/figures.ts';
import { formatDuration, renderTable } from '../../cli/output/table.ts';
import { whyNoGuest } from '../fixtures/guest/start-guest.ts';
import { findDisk } from '../fixtures/world/changing-disk.ts';
import { armDirty, dirtyInBlocks } from '../fixtures/world/dirty-at-instant.ts';
import { expectCleanExt4, expectSameBytes } from '../fixtures/oracle.ts';
import type { SessionReport } from '../fixtures/world/report.ts';
import { World } from '../fixtures/world/world.ts';

const execute = promisify(execFile);
const GRANULARITY = 65_536;
type Hashes = Map<string, string>;
type Taken = {
  name: string;
  report: SessionReport;
  copies: Record<string, string>;
  hashes: Hashes;
  changed: number | null;
  /** From freeze to thaw. */
  frozenMs: number | null;
  tookMs: number;
};
type Shown = { manifest: { consistency: { frozenMs: number | null } } };

let step = 0;
const say = (text: string): void => console.log(text);
const next = (text: string): void => say(`\n[${(step += 1)}/9] ${text}`);

async function inGuest<T>(world: World, script: string, read: (output: string) => T): Promise<T> {
  const agent = await world.agent();
  return read((await agent.run(script, { timeoutMs: 120_000 })).output);
}

/** What `sha256sum` in the guest says of its files. */
const hashesOf = (world: World): Promise<Hashes> =>
  inGuest(world, 'sync; cd /mnt/data/files && sha256sum *', (output) => {
    const lines = output.trim().split('\n');
    return new Map(lines.map((line) => [line.slice(66), line.slice(0, 64)]));
  });

async function backUp(world: World, name: string, isFirst: boolean): Promise<Taken> {
  const hashes = await hashesOf(world);
  const oracle = await world.oracle();
  await oracle.arm(name, isFirst ? [] : await armDirty(world, name));
  const startedMs = performance.now();
  const code = await world.show('job', 'run', 'nightly');
  const tookMs = performance.now() - startedMs;
  if (code !== 0) throw new Error(`the session ended with exit code ${code}`);
  const report = await world.json<SessionReport>(['session', 'show', 'nightly@latest']);
  const shown = await world.json<Shown>(['restore-point', 'show', report.session!.vms[0]!.restorePointId!]);
  const copies = await oracle.copies(name);
  const dirty = isFirst ? null : Object.values(await dirtyInBlocks(world, name, GRANULARITY));
  const changed = dirty?.reduce((sum, bytes) => sum + bytes, 0) ?? null;
  return { name, report, copies, hashes, changed, frozenMs: shown.manifest.consistency.frozenMs, tookMs };
}

/** Disks byte for byte, file system by e2fsck, files by their digests. */
async function restoreAndCompare(world: World, { name, report, copies, hashes }: Taken): Promise<void> {
  const restorePoint = report.session!.vms[0]!.restorePointId!;
  const code = await world.show('restore', 'vm', restorePoint, '--into', world.restores, '--name', name);
  if (code !== 0) throw new Error(`the restore ended with exit code ${code}`);
  for (const disk of world.disks) {
    const file = path.join(world.restores, `${name}-${disk.key}.raw`);
    await expectSameBytes(file, copies[disk.key]!);
    say(`  disk ${disk.key}: ${formatBytes(disk.sizeBytes)}, same bytes as the guest's disk had at that instant (cmp)`);
  }
  const data = path.join(world.restores, `${name}-data.raw`);
  await expectCleanExt4(data);
  say(`  disk data: its ext4 file system is clean (e2fsck -fn)`);
  say(`  ${await compareFiles(world, name, data, hashes)} files: same SHA-256 as in the guest`);
}

async function compareFiles(world: World, name: string, rawFile: string, hashes: Hashes): Promise<number> {
  const folder = path.join(world.root, `${name}-files`);
  await mkdir(folder);
  await execute('debugfs', ['-R', `rdump /files ${folder}`, rawFile]);
  const names = await readdir(path.join(folder, 'files'));
  for (const file of names) {
    const digest = createHash('sha256')
      .update(await readFile(path.join(folder, 'files', file)))
      .digest('hex');
    if (digest !== hashes.get(file)) throw new Error(`file ${file} of restore point ${name} differs from the guest's`);
  }
  if (names.length !== hashes.size)
    throw new Error(`${names.length} files were restored, the guest had ${hashes.size}`);
  return names.length;
}

function showTable(taken: readonly Taken[], diskBytes: number): void {
  const of = (pick: 'readBytes' | 'sentBytes' | 'storedBytes') => (one: Taken) =>
    formatBytes(one.report.session!.vms[0]!.disks.reduce((sum, disk) => sum + disk[pick], 0));
  const columns = [
    { title: 'RESTORE POINT', of: (one: Taken) => one.name },
    { title: 'DISKS', of: () => formatBytes(diskBytes), right: true },
    { title: 'CHANGED', of: (one: Taken) => (one.changed === null ? 'all' : formatBytes(one.changed)), right: true },
    { title: 'READ', of: of('readBytes'), right: true },
    { title: 'SENT', of: of('sentBytes'), right: true },
    { title: 'STORED', of: of('storedBytes'), right: true },
    { title: 'FROZEN', of: ({ frozenMs }: Taken) => (frozenMs === null ? '-' : `${frozenMs} ms`), right: true },
    { title: 'TIME', of: (one: Taken) => formatDuration(one.tookMs), right: true },
  ];
  say(`\n${renderTable(taken, columns)}`);
  say(
    '\nCHANGED: what the guest wrote since the restore point before, in pieces of 64 KiB. READ: whole blocks of 1 MiB with',
  );
  say(
    'changes in them. SENT: blocks the repository did not have, compressed. STORED: those blocks at their size on the disk.\n' +
      'FROZEN: how long the file systems of the guest were held for the moment of the checkpoint (at most 10 s).',
  );
}

async function play(world: World, keep: boolean): Promise<void> {
  const startedMs = performance.now();
  next('starting the stack (Temporal, its UI, a database, the workers) and booting the guest (10-20 s)');
  await Promise.all([world.up(), world.startGuest({ outlives: keep })]);
  const applied = await world.apply();
  if (applied.code !== 0) throw new Error(`${applied.stdout}${applied.stderr}`);
  const { temporal } = await world.status();
  say(`  Temporal UI: ${temporal.uiUrl}`);

  next('the guest writes 60 files to its ext4 disk and 24 MiB to its second disk');
  await inGuest(
    world,
    `mkdir -p /mnt/data/files && cd /mnt/data/files && for i in $(seq 60); do head -c $((i * 20000)) /dev/urandom > $i.bin; done
     ${findDisk('second')} head -c 24000000 /dev/urandom | dd of=$DISK bs=1M seek=16 conv=notrunc 2>/dev/null; sync`,
    () => undefined,
  );
  next('first backup: everything is read, the file systems frozen for the moment of the checkpoint');
  const full = await backUp(world, 'full', true);

  next('the guest changes 5 files, deletes one, and writes 2 MiB to its second disk');
  await inGuest(
    world,
    `cd /mnt/data/files && for i in 7 19 23 42 57; do head -c 300000 /dev/urandom > $i.bin; done; rm 13.bin
     ${findDisk('second')} head -c 2000000 /dev/urandom | dd of=$DISK bs=1M seek=90 conv=notrunc 2>/dev/null; sync`,
    () => undefined,
  );
  next('second backup: only what changed is read');
  const incremental = await backUp(world, 'incremental', false);

  next('restoring the first restore point, and comparing');
  await restoreAndCompare(world, full);
  next('restoring the second restore point, and comparing');
  await restoreAndCompare(world, incremental);

  next('checking every byte that the repository holds');
  const code = await world.show('repository', 'check', 'main', '--full');
  if (code !== 0) throw new Error(`the check ended with exit code ${code}`);

  next('result');
  showTable(
    [full, incremental],
    world.diskBytes.reduce((sum, bytes) => sum + bytes, 0),
  );
  say(`\nBoth restore points came back byte for byte. In all: ${formatDuration(performance.now() - startedMs)}.`);
}

function sayHowToEnd(world: World, uiUrl: string): void {
  say(`\nLeft running, in ${world.root}:`);
  say(`  look:  ${uiUrl}`);
  say(`         npx tidemark session list --state ${world.state}`);
  say(`  end:   npx tidemark down --state ${world.state}; kill ${world.guest.pid}; rm -r ${world.root}`);
}

async function demo(): Promise<number> {
  const keep = process.argv.includes('--keep');
  const why = await whyNoGuest();
  if (why !== null) {
    console.error(`the demo needs the test guest: ${why}`);
    return 1;
  }
  say('Tidemark: a real virtual machine is backed up, changes, is backed up again, and comes back byte for byte.');
  const disks = [
    { key: 'data', sizeMib: 256, filesystem: 'ext4' as const },
    { key: 'second', sizeMib: 128, filesystem: 'none' as const },
  ];
  const world = new World(await mkdtemp(path.join(tmpdir(), 'td-demo-')), { disks });
  let interrupted = false;
  const interrupt = (): void => {
    if (interrupted) return;
    interrupted = true;
    say('\nending what was started');
    void world.close().then(() => process.exit(130));
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt);
  try {
    await play(world, keep);
    const { temporal } = await world.status();
    if (keep) {
      sayHowToEnd(world, temporal.uiUrl);
      await world.leave();
      return 0;
    }
    say(
      "Everything is ended and removed now; `npm run demo -- --keep` leaves it up, to look at the sessions in Temporal's UI.",
    );
  } catch (error) {
    if (interrupted) return new Promise(() => undefined);
    console.error(`\nthe demo failed: ${error instanceof Error ? error.message : String(error)}`);
    await world.close();
    return 1;
  }
  await world.close();
  return 0;
}

process.exitCode = await demo();
