/**
 * The command line around sessions: its exit codes, stopping gracefully, restoring one disk, restores that are killed or
 * stopped in the middle. Images and simulated VMs: no guest is needed for what is shown here.
 */
import { once } from 'node:events';
import { execFileSync } from 'node:child_process';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { expectSameBytes } from '../fixtures/oracle.ts';
import { untilFlowing } from '../fixtures/world/ledger-watch.ts';
import { sampled } from '../fixtures/sampled.ts';
import type { SessionReport } from '../fixtures/world/report.ts';
import { callTidemark, startTidemark } from '../fixtures/world/tidemark.ts';
import { MIB, startEmptyWorld, type World } from '../fixtures/world/world.ts';

const WINDOW = 64 * MIB;
const WINDOWS = 6;
let world: World;
let large: string;
let small: string;
let point: string;

const randomFile = (file: string, mebibytes: number): void =>
  void execFileSync('dd', ['if=/dev/urandom', `of=${file}`, 'bs=1M', `count=${mebibytes}`], { stdio: 'ignore' });

const siteText = (): string => `site: w
machine: m1
hosts:
  - name: images
    provider: image
    vms:
      - name: files
        disks:
          - { name: large, file: ${large}, format: raw }
          - { name: small, file: ${small}, format: raw }
      - name: gone
        disks: [{ name: d0, file: ${path.join(world.root, 'gone.raw')}, format: raw }]
  - name: sim
    provider: simulated
    vms:
${['one', 'two', 'three'].map((name, at) => `      - { name: ${name}, disks: [{ name: d0, size: 384MiB, seed: ${at} }] }`).join('\n')}
proxies:
  - { name: p1, restoreFolders: [${world.restores}] }
repositories:
  - { name: main, folder: ${world.repository} }
jobs:
  - { name: files, vms: [files], repository: main, consistency: none, compression: fast }
  - { name: gone, vms: [gone], repository: main, consistency: none }
  - { name: three, vms: [one, two, three], repository: main, consistency: none, compression: fast, maxParallelVms: 1 }
`;

beforeAll(async () => {
  world = await startEmptyWorld();
  const images = path.join(world.root, 'images');
  await mkdir(images);
  [large, small] = [path.join(images, 'large.raw'), path.join(images, 'small.raw')];
  randomFile(large, (WINDOWS * WINDOW) / MIB);
  randomFile(small, 5);
  const { code, stderr } = await world.apply(siteText());
  expect(code, stderr).toBe(0);
});
afterAll(() => world?.close());

describe('exit codes', () => {
  test('0: a session ended in Success', async () => {
    const report = await world.runJob([0], 'files');
    expect(report.result).toBe('Success');
    point = report.session!.vms[0]!.restorePointId!;
  });

  test('1: it ended in Failed', async () => {
    expect(await world.call('job', 'run', 'gone')).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('hint: '),
    });
  });

  test('2: the argument is wrong', async () => {
    expect(await world.call('job', 'run', 'filse')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('files'),
    });
    expect((await world.call('job', 'walk')).code).toBe(2);
  });

  test('4: no stack runs', async () => {
    const called = await callTidemark(['job', 'run', 'files'], { state: path.join(world.root, 'nothing') });
    expect(called).toMatchObject({ code: 4, stderr: expect.stringContaining('tidemark up') });
  });

  test('130: interrupted; the session goes on without who watched it', async () => {
    const child = startTidemark(['job', 'run', 'files'], { state: world.state });
    let shown = '';
    child.stdout!.on('data', (data: Buffer) => (shown += data.toString()));
    const closed = once(child, 'close');
    await world.until('it is shown', () => Promise.resolve(/\d{8}-\d{6}-\w+/.test(shown)));
    child.kill('SIGINT');
    expect((await closed)[0]).toBe(130);
    const [id] = /\d{8}-\d{6}-\w+/.exec(shown)!;
    expect((await world.watch(id)).result).toBe('Success');
  });
});

test('a session stopped gracefully ends the VM in work, and begins no other', async () => {
  const { sessionId } = await world.json<{ sessionId: string }>(['job', 'run', 'three', '--detach']);
  await untilFlowing(world.repository, [384 * MIB], 0.05);
  const report = await world.json<SessionReport>(['session', 'stop', sessionId, '--graceful', '--wait'], [1]);
  expect(report.error).toMatchObject({ code: 'STOPPED' });
  const vms = report.session!.vms;
  const done = vms.filter((vm) => vm.result === 'Success');
  expect(done.length, 'what was in work is whole').toBeGreaterThan(0);
  expect(vms.at(-1), 'what had not begun was not begun').toMatchObject({ restorePointId: null });
  for (const vm of vms) expect(vm.restorePointId !== null).toBe(vm.result === 'Success');
  const { restorePoints } = await world.json<{ restorePoints: { sessionId: string }[] }>(['restore-point', 'list']);
  expect(restorePoints.filter((one) => one.sessionId === sessionId)).toHaveLength(done.length);
  expect(await world.sql('select kind from leases')).toEqual([]);
});

describe('restores', () => {
  const into = (name: string): string[] => ['--into', world.restores, '--name', name];
  const left = async (name: string): Promise<string[]> =>
    (await readdir(world.restores)).filter((file) => file.startsWith(name) || file.startsWith('.tidemark'));

  test('one disk of a VM', async () => {
    const { files } = await world.json<SessionReport>(['restore', 'disk', point, 'small', ...into('alone')]);
    expect(files.map(({ diskKey }) => diskKey)).toEqual(['small']);
    await expectSameBytes(files[0]!.file, small);
    expect(await left('alone')).toEqual([path.basename(files[0]!.file)]);
  });

  /** From the cursor on disk: at least a fifth of the windows is durably there, and not all. */
  async function untilHalfRestored(): Promise<void> {
    for (const end = performance.now() + 60_000; performance.now() < end; await sleep(5)) {
      for (const name of await readdir(world.restores)) {
        if (!/^\.tidemark-restore-.*\.cursor$/.test(name)) continue;
        const text = await readFile(path.join(world.restores, name), 'utf8').catch(() => '{}');
        const { diskKey, windowsDone = 0 } = JSON.parse(text) as { diskKey?: string; windowsDone?: number };
        if (diskKey !== 'large' || windowsDone < WINDOWS / 5) continue;
        if (windowsDone >= WINDOWS) throw new Error('the restore was over before it was caught in the middle');
        return;
      }
    }
    throw new Error('no restore came to a fifth');
  }

  test.for(sampled(['proxy', 'repository', 'control'], 3))(
    '%s is killed in the middle: the restore goes on from there',
    async (victim) => {
      const started = await world.json<{ sessionId: string }>(['restore', 'vm', point, ...into(victim), '--detach']);
      const { pid } = await world.child(victim);
      await untilHalfRestored();
      process.kill(pid!, 'SIGKILL');
      const { result, files } = await world.watch(started.sessionId);
      expect(result).toBe('Success');
      for (const { diskKey, file } of files) await expectSameBytes(file, diskKey === 'large' ? large : small);
      expect(await left(victim)).toEqual(files.map(({ file }) => path.basename(file)).toSorted());
      expect((await world.child(victim)).pid).not.toBe(pid);
    },
  );

  test('stopped in the middle: nothing is left, and the name is free', async () => {
    const started = await world.json<{ sessionId: string }>(['restore', 'vm', point, ...into('half'), '--detach']);
    const { pid } = await world.child('proxy');
    await untilHalfRestored();
    // The restore takes no longer than the command does to start: held until it has asked.
    process.kill(pid!, 'SIGSTOP');
    const asked = world.json<SessionReport>(['session', 'stop', started.sessionId, '--wait'], [1]);
    await sleep(5000);
    process.kill(pid!, 'SIGCONT');
    const stopped = await asked;
    expect(stopped.error).toMatchObject({ code: 'STOPPED' });
    expect(await left('half')).toEqual([]);
    const restored = await world.restore(point, 'half', 'qcow2');
    execFileSync('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', large, restored['large']!]);
    expect(await world.sql('select kind from leases')).toEqual([]);
  });
});
