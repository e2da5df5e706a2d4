/** The contract suite against a real, paused QEMU, and against a VM that is off. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { diskKey, hostId, siteId, type SiteId, vmId } from '../../../schema/domain/ids.ts';
import {
  bytesOfImage,
  lastingMonitor,
  type MachineDisk,
  qemuImg,
  startQemuMachine,
  writeImage,
} from '../../../tests/fixtures/qemu-machine.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { createFakeFreezer, providerContract, type ProviderWorld } from '../contract.ts';
import type { HypervisorProvider } from '../provider.ts';
import { createQemuProvider } from './provider.ts';

const seams = testSeams();
const vm = { vmId: vmId('33333333-0000-4000-8000-000000000001'), hostId: hostId('kvm1') };

async function makeWorld(power: 'on' | 'off'): Promise<ProviderWorld> {
  const folder = await mkdtemp(join(tmpdir(), 'td-q-'));
  const disks: MachineDisk[] = ['d0', 'd1'].map((key) => ({ key, file: join(folder, key), format: 'qcow2' }));
  for (const [index, { file }] of disks.entries()) await qemuImg('create', '-q', '-f', 'qcow2', file, `${4 + index}M`);
  const machine = power === 'on' ? await startQemuMachine(folder, disks) : null;
  const kept = lastingMonitor(join(folder, 'qmp'));
  const configured = disks.map(({ key, file, format }) => ({ diskKey: diskKey(key), file, format }));
  const config = { name: 'vm1', vmId: vm.vmId, qmp: join(folder, 'qmp') };
  const made: HypervisorProvider[] = [];
  const make = (site: SiteId, state: string): HypervisorProvider => {
    const provider = createQemuProvider({
      host: {
        hostId: vm.hostId,
        slots: 1,
        provider: 'qemu',
        scratch: { folder: join(folder, 'scratch'), maxBytes: 64 * 1024 * 1024 },
        vms: [power === 'on' ? config : { ...config, disks: configured }],
      },
      site,
      stateFolder: join(folder, state),
      monitorOf: () => kept.monitor,
      seams,
    });
    made.push(provider);
    return provider;
  };
  const diskOf = (key: string): MachineDisk => disks.find((disk) => disk.key === key)!;
  return {
    provider: make(siteId('s1'), 'state'),
    site: siteId('s1'),
    vm,
    disks: disks.map(({ key }) => diskKey(key)),
    seams,
    freezer: createFakeFreezer(),
    guest: power,
    changesWhileHeld: power === 'on',
    async scribble(key, extent, seed) {
      const pattern = (seed % 254) + 1;
      await (machine ? machine.write(key, extent, pattern) : writeImage(diskOf(key), extent, pattern));
    },
    bytesNow: async (key) => await readFile(await bytesOfImage(diskOf(key), join(folder, 'flat'))),
    reopen: () => Promise.resolve(make(siteId('s1'), 'state')),
    otherSite: () => Promise.resolve(make(siteId('s2'), 'other')),
    async close() {
      for (const provider of made) {
        for await (const artifact of provider.listArtifacts()) await provider.removeArtifact(artifact);
        await provider.close();
      }
      kept.close();
      await machine?.quit();
      await rm(folder, { recursive: true });
    },
  };
}

providerContract('qemu, the VM runs', () => makeWorld('on'));
providerContract('qemu, the VM is off', () => makeWorld('off'));
