/** Disks of all kinds, processes of others on VM and images, and the guest around the instant. */
import { access, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { proxyId } from '../../../schema/domain/ids.ts';
import { qemuImg } from '../../../tests/fixtures/qemu-machine.ts';
import {
  keyed,
  makeQemuWorld,
  MIB,
  type QemuWorld,
  runOf,
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

describe('all kinds of disks', () => {
  it('raw: backed up, with its reason for not being tracked', async () => {
    await make({ disks: [{ key: 'd0' }, { key: 'r0', format: 'raw', size: '3M' }] });
    const first = await world.sealedOnce();
    expect(first.point!.disks.map(({ diskKey }) => diskKey)).toEqual(['d0']);
    const second = await world.session(2, first);
    expect(usesOf(second)).toEqual(['changes TRACKED', 'compare NOT_TRACKED']);
    await world.quit();
    expect(usesOf(await world.session(3, second))).toEqual(['changes TRACKED', 'compare NOT_TRACKED']);
  });

  it('raw only: no reference point, nothing left', async () => {
    await make({ disks: [{ key: 'r0', format: 'raw', size: '2M' }] });
    const first = await world.session(1, null);
    expect(first.point).toBeNull();
    expect(await world.listed()).toEqual([]);
    await world.quit();
    expect((await world.session(2, first)).point).toBeNull();
    expect(await world.listed()).toEqual([]);
  });

  it('raw of odd length: to its last byte, on and off', async () => {
    await make({ disks: [{ key: 'r0', format: 'raw', size: '1M' }], off: true });
    const { file } = world.disk('r0');
    await truncate(file, MIB + 300);
    const off = await world.session(1, null);
    await world.start();
    const on = await world.session(2, off);
    for (const { checkpoint } of [off, on]) expect(checkpoint.disks[0]!.sizeBytes).toBe(MIB + 300);
  });

  it('qcow2 of the version that keeps no bitmaps', async () => {
    await make({ off: true, disks: [{ key: 'd0' }] });
    await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', world.disk('d0').file, '2M');
    await world.start();
    expect((await world.session(1, null)).point).toBeNull();
  });

  it('on a backing file: the flattened view, tracked, on and off', async () => {
    await make({ off: true, disks: [{ key: 'd0' }] });
    const { file } = world.disk('d0');
    await world.write('d0', { offset: MIB, length: MIB });
    await rename(file, `${file}.base`);
    await qemuImg('create', '-q', '-f', 'qcow2', '-b', `${file}.base`, '-F', 'qcow2', file);
    await world.start();
    const first = await world.sealedOnce();
    const second = await world.session(2, first);
    expect(usesOf(second)).toEqual(['changes TRACKED']);
    await world.quit();
    await world.writeAll();
    expect(usesOf(await world.session(3, second))).toEqual(['changes TRACKED']);
  });

  it('without a name of its own: known by its drive, tracked', async () => {
    await make({ off: true, disks: [{ key: 'drv0' }], configured: false });
    const { file } = world.disk('drv0');
    const drive = ['-drive', `if=none,id=drv0,format=qcow2,file=${file}`];
    await world.startWith([...drive, '-device', 'virtio-blk-pci,drive=drv0,id=dev-drv0'], []);
    const first = await world.sealedOnce();
    expect(usesOf(await world.session(2, first))).toEqual(['changes TRACKED']);
  });

  it('read-only, removable and firmware ones are none of the disks', async () => {
    await make({ off: true, disks: [{ key: 'd0' }] });
    const image = join(world.folder, 'other.raw');
    await writeFile(image, Buffer.alloc(4 * MIB));
    const readOnly = (name: string): string =>
      `driver=raw,node-name=${name},read-only=on,file.driver=file,file.filename=${image}`;
    await world.startWith([
      '-blockdev',
      readOnly('ro'),
      '-device',
      'virtio-blk-pci,drive=ro',
      '-blockdev',
      readOnly('cd'),
      '-device',
      'virtio-scsi-pci',
      '-device',
      'scsi-cd,drive=cd',
      '-device',
      'scsi-cd,id=empty',
      '-drive',
      `if=pflash,unit=0,format=raw,readonly=on,file=${image}`,
    ]);
    const { disks, notes, firmware } = await world.provider.inspectVm(vmRef);
    expect(disks.map(({ diskKey }) => diskKey)).toEqual(['d0']);
    expect(notes).toMatchObject([{ code: 'READ_ONLY_DISK', message: expect.stringContaining('ro') }]);
    expect(firmware).toBe('uefi');
  });

  it('one that tells its guest of errors in writing: said so, and backed up', async () => {
    await make({ off: true, disks: [{ key: 'd0' }] });
    const image = join(world.folder, 'other.raw');
    await writeFile(image, Buffer.alloc(MIB));
    const node = `driver=raw,node-name=told,file.driver=file,file.filename=${image}`;
    await world.startWith(['-blockdev', node, '-device', 'virtio-blk-pci,drive=told,werror=report']);
    const { disks, notes } = await world.provider.inspectVm(vmRef);
    expect(disks.map(({ diskKey }) => diskKey)).toEqual(['d0', 'told']);
    expect(notes).toMatchObject([{ code: 'WRITE_ERRORS_TOLD', message: expect.stringContaining('disk told') }]);
  });
});

describe('while others are at work', () => {
  it('an NBD server of somebody else is left alone: busy, and the guest was not touched', async () => {
    await make();
    const socket = join(world.folder, 'theirs');
    await world.machine.monitor.execute('nbd-server-start', { addr: { type: 'unix', data: { path: socket } } });
    const refused = world.create(world.spec(1, null, { consistency: 'require' }));
    await expect(refused).rejects.toMatchObject({ code: 'PLATFORM_BUSY' });
    expect(world.freezer.calls).toEqual([]);
    expect(await world.listed()).toEqual([]);
    await access(socket);
    await world.machine.monitor.execute('nbd-server-stop');
    await world.session(1, null);
  });

  it('a VM on its way to another host is left alone until it is there, or stays', async () => {
    await make();
    const { monitor } = world.machine;
    await monitor.execute('migrate', { uri: 'exec:sleep 2' });
    await expect(world.create(world.spec(1))).rejects.toMatchObject({
      code: 'PLATFORM_BUSY',
      message: expect.stringContaining('is being migrated'),
    });
    expect(await world.listed()).toEqual([]);
    await monitor.execute('migrate_cancel');
    const state = async () => (await monitor.execute<{ status: string }>('query-migrate')).status;
    await expect.poll(state, { timeout: 20_000 }).toBe('cancelled');
    await world.session(1, null);
  });

  it('a VM that is off cannot start on the images while they are read, and can when they were', async () => {
    await make({ off: true });
    const first = await world.session(1, null);
    await world.create(world.spec(2, first.point));
    await expect(world.start()).rejects.toThrow(/lock/);
    await world.provider.releaseCheckpoint(runOf(2));
    await world.provider.discardReferencePoint(runOf(2));
    await world.start();
    await world.writeAll();
    expect(usesOf(await world.session(3, first))).toEqual(tracked);
  });

  it('images held by a process with another monitor: in use, named, nothing changed', async () => {
    await make();
    await rm(join(world.folder, 'qmp'));
    world.restartWorker({ monitorOf: () => world.deadMonitor() });
    const { file } = world.disk('d0');
    const refused = world.create(world.spec(1));
    await expect(refused).rejects.toMatchObject({ code: 'IMAGE_IN_USE', message: expect.stringContaining(file) });
    const { disks } = await world.provider.inspectVm(vmRef);
    expect(disks.map(({ diskKey }) => diskKey)).toEqual(['d0', 'd1']);
    expect(await world.listed()).toEqual([]);
  });

  it('a VM that is off and whose images are not named: off, with the way out', async () => {
    await make({ off: true, configured: false });
    for (const refused of [
      world.provider.inspectVm(vmRef),
      world.provider.judgeBase(vmRef, null),
      world.create(world.spec(1)),
    ])
      await expect(refused).rejects.toMatchObject({ code: 'VM_OFF' });
    const summaries = [];
    for await (const summary of world.provider.listVms()) summaries.push(summary);
    expect(summaries).toMatchObject([{ power: 'off', disks: null }]);
  });

  it('the daemon that holds the images of a VM that is off is killed: lost, and compared next time', async () => {
    await make({ off: true });
    const first = await world.session(1, null);
    await world.writeAll();
    await world.create(world.spec(2, first.point));
    await world.killDaemon(2);
    const opened = world.provider.openAccess(runOf(2), keyed('d0'), reader);
    await expect(opened).rejects.toMatchObject({ code: 'CHECKPOINT_LOST' });
    await expect(world.provider.releaseCheckpoint(runOf(2))).rejects.toMatchObject({ code: 'CHECKPOINT_LOST' });
    await world.provider.discardReferencePoint(runOf(2));
    const third = await world.session(3, first);
    expect(usesOf(third)).toEqual(lost);
    await world.writeAll();
    expect(usesOf(await world.session(4, third))).toEqual(tracked);
  });
});

describe('the guest around the instant', () => {
  it('thawed before the instant: refused where it is required, else crash-consistent', async () => {
    await make();
    world.freezer.isFrozen = () => Promise.resolve(false);
    const required = world.create(world.spec(1, null, { consistency: 'require' }));
    await expect(required).rejects.toMatchObject({ code: 'GUEST_THAWED_EARLY' });
    expect(world.freezer).toMatchObject({ frozen: false, calls: ['freeze', 'thaw'] });
    expect(await world.listed()).toEqual([]);
    const preferred = await world.create(world.spec(2, null, { consistency: 'prefer' }));
    expect(preferred).toMatchObject({ reached: 'crash', reachedWhy: { code: 'GUEST_THAWED_EARLY' } });
    expect(world.freezer.frozen).toBe(false);
  });

  it('thawed by somebody else before our thaw: not believed', async () => {
    await make();
    const honest = { ...world.freezer };
    world.freezer.thaw = async (vm, run) => ({ ...(await honest.thaw(vm, run)), byUs: false });
    const required = world.create(world.spec(1, null, { consistency: 'require' }));
    await expect(required).rejects.toMatchObject({ code: 'GUEST_THAWED_EARLY' });
    expect(await world.listed()).toEqual([]);
    const preferred = await world.create(world.spec(2, null, { consistency: 'prefer' }));
    expect(preferred).toMatchObject({ reached: 'crash', reachedWhy: { code: 'GUEST_THAWED_EARLY' } });
  });

  it('the transaction fails: the guest is thawed, nothing is left, the base goes on', async () => {
    await make();
    const first = await world.sealedOnce();
    world.restartWorker({
      extraActions: () => Promise.resolve([{ type: 'block-dirty-bitmap-remove', data: { node: 'd0', name: 'none' } }]),
    });
    const failing = world.create(world.spec(2, first.point, { consistency: 'require' }));
    await expect(failing).rejects.toMatchObject({ code: 'HYPERVISOR_ERROR' });
    expect(world.freezer).toMatchObject({ frozen: false, calls: ['freeze', 'thaw'] });
    await world.expectOnly(first);
    world.restartWorker();
    expect(usesOf(await world.session(3, first))).toEqual(tracked);
  });

  it('whoever requires a guest gets none of a VM that is off', async () => {
    await make({ off: true });
    const required = world.create(world.spec(1, null, { consistency: 'require' }));
    await expect(required).rejects.toMatchObject({ code: 'GUEST_REQUIRED' });
    expect(await world.listed()).toEqual([]);
  });

  it('tells what happens to a VM while it is watched', async () => {
    await make();
    await world.create(world.spec(1));
    const stop = new AbortController();
    const seen: string[] = [];
    const watching = (async () => {
      for await (const { kind } of world.provider.watch(runOf(1), stop.signal)) seen.push(kind);
    })();
    const pause = async (): Promise<string[]> => {
      await world.monitor.execute('cont');
      await world.monitor.execute('stop');
      return seen;
    };
    await expect.poll(pause, { timeout: 10_000 }).toContain('paused');
    await world.quit();
    await watching;
    expect(seen.at(-1)).toBe('off');
  });
});
