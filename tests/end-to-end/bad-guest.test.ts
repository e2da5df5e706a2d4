/**
 * Guests and monitors that do not answer, on a real VM: what the job requires is not reached or is told to be missing, the
 * guest runs on, nothing is left. One of the VM's disks stands on a backing file: its flattened view is backed up.
 */
import { execFileSync } from 'node:child_process';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { whyNoGuest } from '../fixtures/guest/start-guest.ts';
import { mountSmallDisk, whyNoSmallDisk } from '../fixtures/small-disk.ts';
import { expectClean, modesOf, readOf, vmOf } from '../fixtures/world/expect-clean.ts';
import { expectRestored, expectSameDisks } from '../fixtures/world/expect-restored.ts';
import { MIB, World } from '../fixtures/world/world.ts';

const why = await whyNoGuest();
let world: World;

const applied = async (text: string): Promise<void> => expect((await world.apply(text)).code).toBe(0);
const policy = (consistency: string): string => world.siteText({ job: [`consistency: ${consistency}`] });

/** Ends the product's agent in the guest (the tests' own lives on), or starts it again. */
async function setAgent(alive: boolean): Promise<void> {
  const agent = await world.agent();
  const port = '$(dirname $(grep -lx org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name))';
  const end = 'for p in $(pidof qemu-ga); do grep -q test-agent /proc/$p/cmdline || kill -9 $p; done';
  if (alive) await agent.launch(`exec qemu-ga -m virtio-serial -p /dev/$(basename ${port}) -t /run/agent`);
  else await agent.run(end);
}

describe.skipIf(why !== null)(`a guest that does not answer${why ? ` (left out: ${why})` : ''}`, () => {
  beforeAll(async () => {
    const disks = [
      { key: 'data', sizeMib: 64, filesystem: 'ext4' },
      { key: 'second', sizeMib: 32, filesystem: 'none' },
    ] as const;
    world = new World(await mkdtemp(path.join(tmpdir(), 'td-w-')), { disks: [...disks] });
    const base = path.join(world.root, 'base.raw');
    const second = world.disks[1]!;
    execFileSync('dd', ['if=/dev/urandom', `of=${base}`, 'bs=1M', 'count=32'], { stdio: 'ignore' });
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', second.file]);
    execFileSync('qemu-io', ['-c', 'write -q -P 5 3M 2M', second.file]);
    await Promise.all([world.up(), world.startGuest()]);
    await applied(world.siteText());
  });
  afterAll(() => world?.close());

  test('policy require with a dead agent fails before anything is made, and says so', async () => {
    await setAgent(false);
    const report = await world.runJob([1]);
    expect(report).toMatchObject({ result: 'Failed', error: { code: 'GUEST_REQUIRED' } });
    expect(vmOf(report)).toMatchObject({ result: 'Failed', restorePointId: null });
    expect(vmOf(report).error!.hint).toMatch(/agent/);
    await expectClean(world, null);
    const { stdout } = await world.call('session', 'show', report.sessionId);
    expect(stdout).toContain('hint: ');
    const { restorePoints } = await world.json<{ restorePoints: unknown[] }>(['restore-point', 'list']);
    expect(restorePoints).toEqual([]);
  });

  test('policy prefer takes a crash-consistent restore point, and warns why', async () => {
    await applied(policy('prefer'));
    const { report, copies } = await world.runWithCopies('prefer', [3]);
    expect(report.result).toBe('Warning');
    expect(vmOf(report).consistency).toBe('crash');
    const warning = report.events.find((event) => event.message.startsWith('crash-consistent only: '));
    expect(warning).toMatchObject({ level: 'warning' });
    type Shown = { manifest: { consistency: { asked: string; reached: string; why: { message: string } } } };
    const { manifest } = await world.json<Shown>(['restore-point', 'show', vmOf(report).restorePointId!]);
    expect(manifest.consistency).toMatchObject({ asked: 'prefer', reached: 'crash' });
    expect(warning!.message).toContain(manifest.consistency.why.message);
    const { stdout } = await world.call('session', 'show', report.sessionId);
    expect(stdout).toContain(warning!.message);
    // Not frozen: a file system at an instant, as after a power cut; the bytes are the same all the same.
    await expectSameDisks(world, vmOf(report).restorePointId!, copies);
    await expectClean(world, vmOf(report).runKey);
  });

  test('with its agent alive again the same guest is frozen; a backing file is flattened', async () => {
    await setAgent(true);
    await applied(policy('require'));
    const { report, copies } = await world.runWithCopies('require');
    expect(vmOf(report).consistency).toBe('filesystem');
    expect(modesOf(report)).toEqual(['cbt', 'cbt']);
    const flat = path.join(world.root, 'flat.raw');
    execFileSync('qemu-img', ['convert', '-U', '-O', 'raw', world.disks[1]!.file, flat]);
    execFileSync('cmp', [flat, copies['second']!]);
    await expectRestored(world, vmOf(report).restorePointId!, copies);
    await expectClean(world, vmOf(report).runKey);
  });

  test('a monitor socket nobody listens on is named, with the way out; guest and chain are untouched', async () => {
    const socket = path.join(world.root, 'vm/nobody.qmp');
    const wrong = policy('require').replace(world.guest.qmpSocket, socket);
    await applied(wrong);
    const withDisks = await world.runJob([1]);
    expect(withDisks.error).toMatchObject({ code: 'IMAGE_IN_USE', message: expect.stringContaining(socket) });
    await applied(wrong.replace(/\n {8}disks:\n(?: {10}- .*\n)+/, '\n'));
    const without = await world.runJob([1]);
    expect(without.error).toMatchObject({ code: 'VM_OFF', message: expect.stringContaining(socket) });
    expect(without.error!.hint).toContain('monitor socket');
    await applied(policy('require'));
    const next = await world.runJob();
    expect(modesOf(next)).toEqual(['cbt', 'cbt']);
    expect(readOf(next)).toBeLessThan(24 * MIB);
    await expectClean(world, vmOf(next).runKey);
  });

  const whyNoDisk = whyNoSmallDisk();
  test.skipIf(whyNoDisk !== null)(
    `a full repository never pauses the guest${whyNoDisk ? ` (left out: ${whyNoDisk})` : ''}; other chains are untouched`,
    async () => {
      const small = mountSmallDisk(24)!;
      try {
        const repository = `  - { name: small, folder: ${path.join(small.folder, 'repository')} }`;
        const job = '  - { name: full, vms: [web], repository: small, consistency: require }';
        await applied(`${policy('require').replace('\njobs:\n', `\n${repository}\njobs:\n`)}${job}\n`);
        const { restorePoints } = await world.json<{ restorePoints: { restorePointId: string }[] }>([
          'restore-point',
          'list',
        ]);
        const failed = await world.runJob([1], 'full');
        expect(failed.error).toMatchObject({ code: 'REPOSITORY_FULL', message: expect.stringContaining('small') });
        type Shown = { manifest: { run: string } };
        const last = await world.json<Shown>(['restore-point', 'show', restorePoints[0]!.restorePointId]);
        await expectClean(world, last.manifest.run);
        expect(modesOf(await world.runJob())).toEqual(['cbt', 'cbt']);
        await applied(policy('require'));
      } finally {
        small.remove();
      }
    },
  );
});
