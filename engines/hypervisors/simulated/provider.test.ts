import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { HostConfig, SimulatedVmConfig } from '../../../schema/domain/configuration.ts';
import type { Capabilities } from '../../../schema/domain/hypervisor.ts';
import { type DiskKey, diskKey, hostId, lineageId, proxyId, runKey, siteId, vmId } from '../../../schema/domain/ids.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import type { Extent } from '../../../schema/domain/extents.ts';
import { openReader } from '../open-reader.ts';
import { createFakeFreezer, providerContract, type ProviderWorld } from '../contract.ts';
import { actOnSimulated, type GuestLine, readSimulated } from './model.ts';
import { createSimulatedProvider } from './provider.ts';

const MIB = 1024 * 1024;
const config: SimulatedVmConfig = {
  name: 'vm1',
  vmId: vmId('11111111-0000-4000-8000-000000000001'),
  disks: [
    { diskKey: diskKey('d0'), sizeBytes: 8 * MIB, seed: 11 },
    { diskKey: diskKey('d1'), sizeBytes: 3 * MIB + 700, seed: 12 },
  ],
};
const host: Extract<HostConfig, { provider: 'simulated' }> = {
  hostId: hostId('sim1'),
  slots: 1,
  provider: 'simulated',
  vms: [config],
};

type World = ProviderWorld & { act: (line: GuestLine) => Promise<void> };

async function makeWorld(kind: Partial<Pick<Capabilities, 'quiesce' | 'referencePointAt'>>): Promise<World> {
  const stateFolder = await mkdtemp(join(tmpdir(), 'td-sim-'));
  const seams = testSeams();
  const site = siteId('s1');
  const make = (of = site) => createSimulatedProvider({ host, site: of, stateFolder, seams, ...kind });
  const act = (line: GuestLine): Promise<void> => actOnSimulated(stateFolder, config.vmId, line);
  return {
    provider: make(),
    site,
    vm: { vmId: config.vmId, hostId: host.hostId },
    disks: config.disks.map((disk) => disk.diskKey),
    seams,
    freezer: createFakeFreezer(),
    changesWhileHeld: true,
    act,
    scribble: (disk, { offset, length }, seed) => act({ kind: 'write', diskKey: disk, offset, length, seed }),
    bytesNow: (disk) =>
      readSimulated(
        stateFolder,
        config.disks.find((one) => one.diskKey === disk)!,
        config.vmId,
      ),
    reopen: () => Promise.resolve(make()),
    otherSite: () => Promise.resolve(make(siteId('s2'))),
    close: () => rm(stateFolder, { recursive: true }),
  };
}

providerContract('simulated, known at the checkpoint', () => makeWorld({}));
providerContract('simulated with agent, known at the release', () =>
  makeWorld({ quiesce: 'agent', referencePointAt: 'release' }),
);

describe('simulated provider', () => {
  const spec = (world: World) => ({
    run: runKey('abcdefghijk1'),
    vm: world.vm,
    lineage: lineageId('00000000000000aa'),
    disks: [...world.disks],
    base: null,
    consistency: 'none' as const,
  });

  it('fails as often as it is told to, and counts over restarts', async () => {
    const world = await makeWorld({});
    await world.act({ kind: 'fault', verb: 'inspectVm', times: 2, code: 'PLATFORM_BUSY' });
    await expect(world.provider.inspectVm(world.vm)).rejects.toMatchObject({ code: 'PLATFORM_BUSY' });
    const again = await world.reopen();
    await expect(again.inspectVm(world.vm)).rejects.toMatchObject({ code: 'PLATFORM_BUSY' });
    expect((await again.inspectVm(world.vm)).name).toBe('vm1');
    await world.close();
  });

  it.each<[GuestLine, string]>([
    [{ kind: 'tracking-lost' }, 'TRACKING_LOST'],
    [{ kind: 'replace', diskKey: diskKey('d0'), seed: 99 }, 'DISK_REPLACED'],
    [{ kind: 'resize', diskKey: diskKey('d0'), sizeBytes: 9 * MIB }, 'DISK_RESIZED'],
  ])('compares after %o', async (line, code) => {
    const world = await makeWorld({});
    await world.provider.createCheckpoint(spec(world), world.freezer);
    const { referencePoint } = await world.provider.releaseCheckpoint(spec(world).run);
    await world.act(line);
    const [verdict] = await world.provider.judgeBase(world.vm, referencePoint);
    expect(verdict).toMatchObject({ diskKey: 'd0', use: 'compare', reason: { code } });
    await world.close();
  });

  it('tracking may forget what it was told, and says nothing of it', async () => {
    const world = await makeWorld({});
    await world.provider.createCheckpoint(spec(world), world.freezer);
    const { referencePoint } = await world.provider.releaseCheckpoint(spec(world).run);
    const [d0] = world.disks as [DiskKey];
    await world.scribble(d0, { offset: MIB, length: 3 * MIB }, 5);
    await world.act({ kind: 'bits-lost', diskKey: d0, offset: 2 * MIB, length: MIB });
    await world.scribble(d0, { offset: 2 * MIB + 512, length: 512 }, 6);
    const next = { ...spec(world), run: runKey('bbbbbbbbbbb2'), base: referencePoint };
    const { disks } = await world.provider.createCheckpoint(next, world.freezer);
    expect(disks[0]!.verdict.use).toBe('changes');
    const access = await world.provider.openAccess(next.run, d0, proxyId('p1'));
    const reader = await openReader(access, world.seams);
    const changed: Extent[] = [];
    for await (const extent of reader.changedExtents({ offset: 0, length: reader.sizeBytes })) changed.push(extent);
    expect(changed).toEqual([
      { offset: MIB, length: MIB },
      { offset: 2 * MIB + 512, length: 512 },
      { offset: 3 * MIB, length: MIB },
    ]);
    await world.close();
  });

  it('tells what happens to the guest meanwhile', async () => {
    const world = await makeWorld({});
    await world.provider.createCheckpoint(spec(world), world.freezer);
    const stop = new AbortController();
    const events = world.provider.watch(spec(world).run, stop.signal)[Symbol.asyncIterator]();
    const next = events.next();
    await world.seams.clock.sleep(20);
    await world.act({ kind: 'power', power: 'off' });
    expect((await next).value).toMatchObject({ kind: 'off' });
    stop.abort();
    expect((await events.next()).done).toBe(true);
    await world.close();
  });
});

it('a disk with an image holds its bytes, zeros behind its end, and what was written since', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'td-sim-'));
  const image = join(folder, 'image');
  await writeFile(image, Buffer.alloc(1000, 7));
  const disk = { diskKey: diskKey('d0'), sizeBytes: 4096, seed: 1, image };
  await actOnSimulated(folder, config.vmId, { kind: 'write', diskKey: disk.diskKey, offset: 10, length: 5, seed: 0 });
  const expected = Buffer.concat([Buffer.alloc(1000, 7), Buffer.alloc(3096)]).fill(0, 10, 15);
  expect(Buffer.from(await readSimulated(folder, disk, config.vmId)).equals(expected)).toBe(true);
  await rm(folder, { recursive: true });
});
