/** What sessions leave behind that nobody ended, or that were ended by another hand: mended or removed, never believed. */
import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { proxyId, siteId } from '../../../schema/domain/ids.ts';
import { keyed, makeQemuWorld, MIB, type QemuWorld, runOf, usesOf, vmRef } from '../../../tests/fixtures/qemu-world.ts';

let world: QemuWorld;
afterEach(() => world.close());
const make = async (options: Parameters<typeof makeQemuWorld>[0] = {}): Promise<void> => {
  world = await makeQemuWorld(options);
};
const tracked = ['changes TRACKED', 'changes TRACKED'];
const reader = proxyId('p1');

describe('sessions that nobody ended', () => {
  it('sealed, but never committed: the next one stands on it, and its commit drops the ones before', async () => {
    await make();
    const first = await world.sealedOnce();
    const second = await world.session(2, first, { seal: false });
    await world.writeAll();
    expect((await world.provider.inspectVm(vmRef)).referencePoints).toHaveLength(2);
    world.restartWorker();
    const third = await world.session(3, second);
    expect(usesOf(third)).toEqual(tracked);
    await world.expectOnly(third);
  });

  it('released, but never sealed: the next one stands on the one before, and nothing is missed', async () => {
    await make();
    const first = await world.sealedOnce();
    await world.session(2, first, { seal: false });
    await world.writeAll();
    expect(await world.verdicts(first.point)).toEqual({ d0: tracked[0], d1: tracked[1] });
    const third = await world.session(3, first);
    expect(usesOf(third)).toEqual(tracked);
    await world.expectOnly(third);
  });

  it('one on another, neither in the repository any more: folded back link by link', async () => {
    await make();
    const first = await world.sealedOnce();
    const second = await world.session(2, first, { seal: false });
    await world.writeAll();
    await world.session(3, second, { seal: false });
    await world.writeAll();
    expect(await world.verdicts(first.point)).toEqual({ d0: tracked[0], d1: tracked[1] });
    const fourth = await world.session(4, first);
    expect(usesOf(fourth)).toEqual(tracked);
    await world.expectOnly(fourth);
  });

  it('a first one, of which nothing was sealed: the next one does without, and drops it', async () => {
    await make();
    await world.session(1, null, { seal: false });
    const second = await world.session(2, null);
    await world.expectOnly(second);
  });

  it('held when the VM was switched off: mended in its images, or in the VM when it is on again', async () => {
    await make();
    let base = await world.sealedOnce();
    for (const [index, on] of [true, false].entries()) {
      await world.create(world.spec(10 + index, base.point));
      await world.writeAll();
      await world.quit();
      await world.writeAll();
      if (on) await world.start();
      const next = await world.session(20 + index, base);
      expect(usesOf(next)).toEqual(tracked);
      if (!on) await world.start();
      await world.expectOnly(next);
      base = next;
    }
  });
});

describe('a checkpoint that another hand ended', () => {
  const cancelJobs = async (): Promise<void> => {
    const jobs = await world.machine.monitor.execute<{ id: string }[]>('query-jobs');
    for (const { id } of jobs) await world.machine.monitor.execute('job-cancel', { id });
  };
  const code = 'CHECKPOINT_LOST';

  it('is noticed by the worker: its readers are cut off, nothing temporary stays, the next is an increment', async () => {
    await make();
    const first = await world.sealedOnce();
    await world.create(world.spec(2, first.point));
    const access = await world.provider.openAccess(runOf(2), keyed('d0'), reader);
    expect(access.sizeBytes).toBe(4 * MIB);
    await cancelJobs();
    const exports = () => world.machine.monitor.execute('query-block-exports');
    await expect.poll(exports, { timeout: 10_000 }).toEqual([]);
    await expect(world.provider.openAccess(runOf(2), keyed('d0'), reader)).rejects.toMatchObject({ code });
    await expect(world.create(world.spec(2, first.point))).rejects.toMatchObject({ code });
    for (const _ of [1, 2]) await expect(world.provider.releaseCheckpoint(runOf(2))).rejects.toMatchObject({ code });
    expect((await world.listed()).filter(({ kind, run }) => kind === 'temporary' && run === runOf(2))).toEqual([]);
    await world.provider.discardReferencePoint(runOf(2));
    await world.expectOnly(first);
    const third = await world.session(3, first);
    expect(usesOf(third)).toEqual(tracked);
  });

  it('is ended as soon as the monitor can be reached again', async () => {
    await make();
    let refusals = Infinity;
    const { monitor } = world;
    const execute = async <T>(command: string, args?: Record<string, unknown>): Promise<T> => {
      if ((refusals -= 1) >= 0 && refusals < 3) throw new TidemarkError('UNREACHABLE', 'the keeper is being restarted');
      return await monitor.execute<T>(command, args);
    };
    world.restartWorker({ monitorOf: () => ({ ...monitor, execute }) });
    await world.create(world.spec(1));
    refusals = 3;
    await cancelJobs();
    const exports = () => world.machine.monitor.execute('query-block-exports');
    await expect.poll(exports, { timeout: 20_000 }).toEqual([]);
    expect(refusals).toBeLessThan(0);
    await expect(world.provider.releaseCheckpoint(runOf(1))).rejects.toMatchObject({ code });
    await world.provider.discardReferencePoint(runOf(1));
    expect(await world.listed()).toEqual([]);
  });

  it('is noticed by the next worker, when there was none', async () => {
    await make();
    const first = await world.sealedOnce();
    await world.create(world.spec(2, first.point));
    await world.provider.close();
    await cancelJobs();
    world.restartWorker();
    const exports = () => world.machine.monitor.execute('query-block-exports');
    await expect.poll(exports, { timeout: 10_000 }).toEqual([]);
    expect(await world.provider.findCheckpoint(runOf(2))).toBeNull();
    await expect(world.provider.openAccess(runOf(2), keyed('d0'), reader)).rejects.toMatchObject({ code });
    await expect(world.provider.releaseCheckpoint(runOf(2))).rejects.toMatchObject({ code });
    await world.provider.discardReferencePoint(runOf(2));
    await world.expectOnly(first);
  });

  it('removed by the janitor: not to be released any more, and its bitmaps are folded back', async () => {
    await make();
    const first = await world.sealedOnce();
    await world.create(world.spec(2, first.point));
    const ours = (await world.listed()).filter(({ run }) => run === runOf(2));
    expect(new Set(ours.map(({ kind }) => kind))).toEqual(new Set(['temporary', 'reference-point']));
    for (const one of ours.filter(({ kind }) => kind === 'temporary')) await world.provider.removeArtifact(one);
    await expect(world.provider.releaseCheckpoint(runOf(2))).rejects.toMatchObject({ code });
    for (const one of ours) await world.provider.removeArtifact(one);
    await world.expectOnly(first);
    expect(usesOf(await world.session(3, first))).toEqual(tracked);
  });
});

describe('the folder of the host is lost', () => {
  it('everything is found by its name, and can be removed', async () => {
    await make();
    await world.session(1, null, { seal: false });
    await world.create(world.spec(2));
    await world.provider.close();
    await rm(join(world.folder, 'state'), { recursive: true });
    world.restartWorker();
    const found = await world.listed();
    expect(new Set(found.map(({ run }) => run))).toEqual(new Set([runOf(1), runOf(2)]));
    for (const kind of ['temporary', 'reference-point'] as const)
      for (const one of found.filter((each) => each.kind === kind)) await world.provider.removeArtifact(one);
    expect(await world.listed()).toEqual([]);
    expect(await world.bitmaps()).toEqual({});
    expect(await world.machine.monitor.execute('query-jobs')).toEqual([]);
    expect(await readdir(world.scratch)).toEqual([]);
  });

  it('of a VM that is off, too', async () => {
    await make({ off: true });
    await world.session(1, null, { seal: false });
    await rm(join(world.folder, 'state'), { recursive: true });
    world.restartWorker();
    const found = await world.listed();
    expect(found.map(({ run }) => run)).toEqual([runOf(1), runOf(1)]);
    for (const one of found) await world.provider.removeArtifact(one);
    expect(await world.listed()).toEqual([]);
  });

  it('a base that is still there is believed: it recorded all the time', async () => {
    await make();
    const first = await world.sealedOnce();
    await world.provider.close();
    await rm(join(world.folder, 'state'), { recursive: true });
    world.restartWorker();
    const second = await world.session(2, first);
    expect(usesOf(second)).toEqual(tracked);
    await world.expectOnly(second);
  });
});

describe('the file of a run is damaged', () => {
  it('its base is not believed any more, the rest goes on, and the janitor can remove what it left', async () => {
    await make();
    const first = await world.sealedOnce();
    await world.session(2, first, { seal: false });
    const file = join(world.folder, 'state/runs', `${runOf(2)}.json`);
    await writeFile(file, '{"version": 2}');
    expect(await world.verdicts(first.point)).toEqual({ d0: 'compare TRACKING_LOST', d1: 'compare TRACKING_LOST' });
    const third = await world.session(3, first);
    expect(usesOf(third)).toEqual(['compare TRACKING_LOST', 'compare TRACKING_LOST']);
    await expect(world.provider.releaseCheckpoint(runOf(2))).rejects.toMatchObject({
      code: 'STORAGE_ERROR',
      message: expect.stringContaining(file),
    });
    for (const one of await world.listed()) if (one.run === runOf(2)) await world.provider.removeArtifact(one);
    await world.expectOnly(third);
    expect(await readdir(join(world.folder, 'state/runs'))).toEqual([`${runOf(3)}.json`]);
  });
});

describe('what is not ours', () => {
  it('is left as it is by every verb: bitmaps, jobs, nodes, files', async () => {
    await make();
    const { monitor } = world.machine;
    const other = siteId('s2');
    const theirs = `td-${other}-${runOf(1)}-bm0`;
    for (const name of ['theirs', theirs])
      await monitor.execute('block-dirty-bitmap-add', { node: 'd0', name, persistent: true });
    await monitor.execute('blockdev-add', { driver: 'null-co', 'node-name': 'their-target', size: 5 * MIB });
    const job = { 'job-id': 'their-job', device: 'd1', target: 'their-target', sync: 'none' };
    await monitor.execute('blockdev-backup', job);
    const first = await world.sealedOnce();
    await world.create(world.spec(2, first.point));
    await world.provider.releaseCheckpoint(runOf(2));
    await world.provider.discardReferencePoint(runOf(2));
    const third = await world.session(3, first);
    expect(usesOf(third)).toEqual(tracked);
    for (const artifact of await world.listed()) await world.provider.removeArtifact(artifact);
    const names = (await monitor.execute<Node[]>('query-named-block-nodes', { flat: true })).flatMap((node) =>
      node['node-name'] === 'd0' ? (node['dirty-bitmaps'] ?? []).map(({ name }) => name) : [],
    );
    expect(names.sort()).toEqual([theirs, 'theirs']);
    expect(await monitor.execute('query-jobs')).toMatchObject([{ id: 'their-job', status: 'running' }]);
    await monitor.execute('job-cancel', { id: 'their-job' });
  });
});
type Node = { 'node-name': string; 'dirty-bitmaps'?: { name: string }[] };
