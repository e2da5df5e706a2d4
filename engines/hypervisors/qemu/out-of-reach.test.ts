/** A held checkpoint whose VM left the configuration, or whose monitor is gone: ended in QEMU, or not called gone. */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { vmId } from '../../../schema/domain/ids.ts';
import type { Monitor } from '../../../schema/domain/seams.ts';
import {
  lineage,
  makeQemuWorld,
  type QemuWorld,
  runOf,
  site,
  usesOf,
  vmRef,
} from '../../../tests/fixtures/qemu-world.ts';
import { connectKeeper } from '../../guest/keeper/client.ts';
import type { KeptVm } from '../../guest/keeper/protocol.ts';
import { startGuestKeeper } from '../../guest/keeper/guest-keeper.ts';
import { readJson, writeJson } from '../durable-json.ts';

let world: QemuWorld;
afterEach(() => world.close());

const tracked = ['changes TRACKED', 'changes TRACKED'];
const jobs = (): Promise<{ id: string }[]> => world.machine.monitor.execute('query-jobs');
const temporary = async (): Promise<string[]> =>
  (await world.listed())
    .filter(({ kind }) => kind === 'temporary')
    .map(({ platformName }) => platformName)
    .sort();

/** As the guest keeper's, of a VM that it does not have. */
const unknownMonitor: Monitor = {
  execute: () => Promise.reject(new TidemarkError('VM_NOT_FOUND', 'the guest keeper has no such vm')),
  events: () => {
    throw new TidemarkError('VM_NOT_FOUND', 'the guest keeper has no such vm');
  },
};

it('the VM leaves the configuration of keeper and worker: its checkpoint is ended in QEMU, its bitmaps are mended', async () => {
  world = await makeQemuWorld();
  const first = await world.sealedOnce();
  world.monitorLetGo();
  let vms: KeptVm[] = [{ vmId: vmRef.vmId, qmp: world.monitorSocket, site }];
  const { seams } = world;
  const socket = join(world.folder, 'keeper.sock');
  const stateFolder = join(world.folder, 'keeper');
  const keeper = await startGuestKeeper({ socket, stateFolder, loadVms: () => Promise.resolve(vms), seams });
  const client = connectKeeper({ socket, seams });
  try {
    const monitorOf = (vm: typeof vmRef.vmId): Monitor => client.monitor(vm);
    world.restartWorker({ monitorOf });
    await world.create(world.spec(2, first.point));
    await world.writeAll();
    expect(await jobs()).toHaveLength(2);
    await world.provider.close();
    vms = [];
    await keeper.reload();
    world.restartWorker({ monitorOf, host: { ...world.host, vms: [] } });
    await expect(world.provider.releaseCheckpoint(runOf(2))).rejects.toMatchObject({
      code: 'CHECKPOINT_LOST',
      message: expect.stringContaining('not of this host any more'),
    });
    expect(await jobs()).toEqual([]);
    expect(await world.machine.monitor.execute('query-block-exports')).toEqual([]);
    await world.provider.discardReferencePoint(runOf(2));
    await world.expectOnly(first);
    vms = [{ vmId: vmRef.vmId, qmp: world.monitorSocket, site }];
    await keeper.reload();
    world.restartWorker({ monitorOf });
    expect(usesOf(await world.session(3, first))).toEqual(tracked);
  } finally {
    client.close();
    await keeper.stop(1000);
  }
});

it('the VM was given another name: asked under that, by the janitor', async () => {
  world = await makeQemuWorld();
  await world.create(world.spec(1));
  await world.provider.close();
  const [vm] = world.host.vms;
  const renamed = { ...vm!, name: 'vm2', vmId: vmId('33333333-0000-4000-8000-000000000003') };
  const monitorOf = (id: typeof vmRef.vmId): Monitor => (id === renamed.vmId ? world.monitor : unknownMonitor);
  world.restartWorker({ monitorOf, host: { ...world.host, vms: [renamed] } });
  for (const artifact of await world.listed()) await world.provider.removeArtifact(artifact);
  expect(await jobs()).toEqual([]);
  expect(await world.listed()).toEqual([]);
  expect(await world.bitmaps()).toEqual({});
});

describe('neither in the configuration nor anywhere to be asked: kept until it is', () => {
  const expectKept = async (message: RegExp): Promise<void> => {
    const before = { files: (await readdir(world.scratch)).sort(), listed: await temporary() };
    expect(before.files).toHaveLength(3);
    const busy = { code: 'PLATFORM_BUSY', message: expect.stringMatching(message) };
    await expect(world.provider.releaseCheckpoint(runOf(1))).rejects.toMatchObject(busy);
    await expect(world.provider.discardReferencePoint(runOf(1))).rejects.toMatchObject(busy);
    for (const artifact of await world.listed())
      await expect(world.provider.removeArtifact(artifact)).rejects.toMatchObject(busy);
    expect({ files: (await readdir(world.scratch)).sort(), listed: await temporary() }).toEqual(before);
    expect(await jobs()).toHaveLength(2);
  };

  it('of a run that does not say where its monitor was; ended once the VM is back', async () => {
    world = await makeQemuWorld();
    await world.create(world.spec(1));
    await world.provider.close();
    const file = join(world.folder, 'state/runs', `${runOf(1)}.json`);
    const { monitorSocket, ...older } = (await readJson(file)) as { monitorSocket: string };
    expect(monitorSocket).toBe(world.monitorSocket);
    await writeJson(file, older);
    world.restartWorker({ monitorOf: () => unknownMonitor, host: { ...world.host, vms: [] } });
    await expectKept(new RegExp(`vm ${vmRef.vmId} .*put the VM back into the configuration, or shut it down`));
    await world.provider.close();
    world.restartWorker();
    await expect(world.provider.releaseCheckpoint(runOf(1))).rejects.toMatchObject({ code: 'CHECKPOINT_LOST' });
    expect(await jobs()).toEqual([]);
    expect(await temporary()).toEqual([]);
    expect(await readdir(world.scratch)).toEqual([]);
  });

  it('of a VM whose monitor has lost its socket; ended once the VM is off', async () => {
    world = await makeQemuWorld();
    await world.create(world.spec(1));
    await world.provider.close();
    world.monitorLetGo();
    await rm(world.monitorSocket);
    world.restartWorker({ monitorOf: () => world.deadMonitor() });
    await expectKept(new RegExp(`vm vm1 \\(monitor ${world.monitorSocket}\\) .*correct its monitor`));
    await world.quit();
    await expect(world.provider.releaseCheckpoint(runOf(1))).rejects.toMatchObject({ code: 'CHECKPOINT_LOST' });
    expect(await temporary()).toEqual([]);
    expect(await readdir(world.scratch)).toEqual([]);
  });
});

describe('the socket of our NBD server is gone, as with a cleaner of temporary files', () => {
  const serverSocket = (index: number): string => join(world.scratch, `td-${site}-${runOf(index)}-nbd0.sock`);

  it('the release ends the server all the same, and the next session has its own', async () => {
    world = await makeQemuWorld();
    await world.create(world.spec(1));
    await rm(serverSocket(1));
    await world.provider.releaseCheckpoint(runOf(1));
    await world.provider.discardReferencePoint(runOf(1));
    await world.session(2, null);
  });

  it('who reads on finds it started anew, also through another worker', async () => {
    world = await makeQemuWorld();
    const first = await world.sealedOnce();
    const before = await world.bytesNow('d0');
    const checkpoint = await world.create(world.spec(2, first.point));
    await world.provider.close();
    world.restartWorker();
    await world.writeAll();
    await rm(serverSocket(2));
    const { bytes } = await world.read(checkpoint, first);
    expect(bytes.get('d0')!.equals(before)).toBe(true);
    const { referencePoint } = await world.provider.releaseCheckpoint(runOf(2));
    await world.provider.commitReferencePoint(lineage, referencePoint!);
    await world.expectOnly({ ...first, point: referencePoint });
  });

  it('a server through which others export is not ended, by whomever it was started: said, and the guest is free', async () => {
    world = await makeQemuWorld();
    const { monitor } = world.machine;
    await world.create(world.spec(1));
    const theirs = { type: 'nbd', id: 'theirs', 'node-name': 'd0', name: 'theirs' };
    await monitor.execute('block-export-add', theirs);
    for (const socket of [null, serverSocket(1)]) {
      if (socket !== null) await rm(socket);
      await expect(world.provider.releaseCheckpoint(runOf(1))).rejects.toMatchObject({
        code: 'PLATFORM_BUSY',
        message: expect.stringContaining('theirs'),
      });
      expect(await monitor.execute('query-block-exports')).toMatchObject([{ id: 'theirs' }]);
      expect(await jobs()).toEqual([]);
    }
    await monitor.execute('block-export-del', { id: 'theirs', mode: 'hard' });
    expect((await world.provider.releaseCheckpoint(runOf(1))).referencePoint).not.toBeNull();
    await world.provider.discardReferencePoint(runOf(1));
    await world.session(2, null);
  });

  it('a server of others in a VM that was started again since is left alone', async () => {
    world = await makeQemuWorld();
    await world.create(world.spec(1));
    await world.quit();
    await world.start();
    const socket = join(world.folder, 'theirs');
    await world.machine.monitor.execute('nbd-server-start', { addr: { type: 'unix', data: { path: socket } } });
    await expect(world.create(world.spec(2))).rejects.toMatchObject({ code: 'PLATFORM_BUSY' });
    await world.machine.monitor.execute('nbd-server-stop');
    await world.session(3, null);
  });
});
