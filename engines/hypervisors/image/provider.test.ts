import { execFileSync, spawn } from 'node:child_process';
import { mkdtemp, open, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { HostConfig, ImageVmConfig } from '../../../schema/domain/configuration.ts';
import type { CheckpointSpec } from '../../../schema/domain/hypervisor.ts';
import { diskKey, hostId, lineageId, proxyId, runKey, siteId, type SiteId, vmId } from '../../../schema/domain/ids.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { createFakeFreezer, providerContract, type ProviderWorld } from '../contract.ts';
import { openReader } from '../open-reader.ts';
import type { HypervisorProvider } from '../provider.ts';
import { createImageProvider } from './provider.ts';

const MIB = 1024 * 1024;
const seams = testSeams();
type Disk = ImageVmConfig['disks'][number];
const qemuImg = (...words: string[]): string => execFileSync('qemu-img', words, { encoding: 'utf8' });

type Platform = {
  folder: string;
  vm: ImageVmConfig;
  make: (site?: SiteId, state?: string) => HypervisorProvider;
  close: () => Promise<void>;
};

async function makePlatform(disks: (folder: string) => Disk[]): Promise<Platform> {
  const folder = await mkdtemp(join(tmpdir(), 'td-img-'));
  const vm = { name: 'vm1', vmId: vmId('22222222-0000-4000-8000-000000000001'), disks: disks(folder) };
  const host: Extract<HostConfig, { provider: 'image' }> = {
    hostId: hostId('img1'),
    slots: 1,
    provider: 'image',
    vms: [vm],
  };
  const made: HypervisorProvider[] = [];
  return {
    folder,
    vm,
    make(site = siteId('s1'), state = 'state') {
      const provider = createImageProvider({ host, site, stateFolder: join(folder, state), seams });
      made.push(provider);
      return provider;
    },
    async close() {
      for (const provider of made) {
        for await (const artifact of provider.listArtifacts()) await provider.removeArtifact(artifact);
        await provider.close();
      }
      await rm(folder, { recursive: true });
    },
  };
}

const disk = (folder: string, key: string, format: Disk['format']): Disk => ({
  diskKey: diskKey(key),
  file: join(folder, `${key}.${format}`),
  format,
  allowBacking: false,
});

async function makeWorld(): Promise<ProviderWorld> {
  const platform = await makePlatform((folder) => [disk(folder, 'raw', 'raw'), disk(folder, 'cow', 'qcow2')]);
  const [raw, cow] = platform.vm.disks;
  await writeFile(raw!.file, '');
  await truncate(raw!.file, 4 * MIB + 700);
  qemuImg('create', '-q', '-f', 'qcow2', cow!.file, '5M');
  const fileOf = (key: string): Disk => platform.vm.disks.find((one) => one.diskKey === key)!;
  return {
    provider: platform.make(),
    site: siteId('s1'),
    vm: { vmId: platform.vm.vmId, hostId: hostId('img1') },
    disks: platform.vm.disks.map((one) => one.diskKey),
    seams,
    freezer: createFakeFreezer(),
    changesWhileHeld: false,
    async scribble(key, { offset, length }, seed) {
      const { file, format } = fileOf(key);
      const command = `write -P ${(seed % 254) + 1} ${offset} ${length}`;
      execFileSync('qemu-io', ['-f', format, '-c', command, file]);
      await Promise.resolve();
    },
    async bytesNow(key) {
      const { file, format } = fileOf(key);
      if (format === 'raw') return await readFile(file);
      const flat = join(platform.folder, 'flat.raw');
      qemuImg('convert', '-f', format, '-O', 'raw', file, flat);
      return await readFile(flat);
    },
    reopen: () => Promise.resolve(platform.make()),
    otherSite: () => Promise.resolve(platform.make(siteId('s2'), 'other')),
    close: platform.close,
  };
}

providerContract('image', makeWorld);

describe('image provider', () => {
  let platform: Platform;
  let provider: HypervisorProvider;
  const one = (): Disk => platform.vm.disks[0]!;
  const spec = (over: Partial<CheckpointSpec> = {}): CheckpointSpec => ({
    run: runKey('abcdefghijk1'),
    vm: { vmId: platform.vm.vmId, hostId: hostId('img1') },
    lineage: lineageId('00000000000000aa'),
    disks: platform.vm.disks.map((each) => each.diskKey),
    base: null,
    consistency: 'none',
    ...over,
  });
  const create = (): Promise<unknown> => provider.createCheckpoint(spec(), createFakeFreezer());
  const use = async (disks: (folder: string) => Disk[]): Promise<void> => {
    platform = await makePlatform(disks);
    provider = platform.make();
  };
  beforeEach(() => use((folder) => [disk(folder, 'raw', 'raw')]));
  afterEach(() => platform.close());

  it('reads a raw image of odd length to its last byte', async () => {
    const content = Buffer.alloc(MIB + 1, 'x');
    content.write('the end', MIB - 6);
    await writeFile(one().file, content);
    await create();
    const access = await provider.openAccess(spec().run, one().diskKey, proxyId('p1'));
    expect(access.sizeBytes).toBe(content.length);
    const reader = await openReader(access, seams);
    const bytes = Buffer.alloc(content.length);
    await reader.read({ offset: 0, length: bytes.length }, bytes, new AbortController().signal);
    await reader.close();
    expect(bytes.equals(content)).toBe(true);
  });

  it('refuses an image without a byte, and says the way out', async () => {
    await writeFile(one().file, '');
    expect((await provider.inspectVm(spec().vm)).disks[0]).toMatchObject({ snapshotOk: false, sizeBytes: 0 });
    await expect(create()).rejects.toMatchObject({ code: 'BAD_DISK', message: expect.stringContaining(one().file) });
  });

  it('refuses a file that is not there or not of its format', async () => {
    await expect(create()).rejects.toMatchObject({ code: 'BAD_DISK', message: expect.stringContaining(one().file) });
    await platform.close();
    await use((folder) => [disk(folder, 'cow', 'qcow2')]);
    await writeFile(one().file, 'no header');
    await expect(create()).rejects.toMatchObject({ code: 'BAD_DISK' });
  });

  it('refuses a qcow2 that is called raw, before anything is done, and says the way out', async () => {
    await writeFile(join(platform.folder, 'base.raw'), Buffer.alloc(MIB, 'b'));
    qemuImg('create', '-q', '-f', 'qcow2', '-b', join(platform.folder, 'base.raw'), '-F', 'raw', one().file);
    const refusal = { code: 'BAD_DISK', message: expect.stringContaining('say `format: qcow2` for it') };
    await expect(provider.inspectVm(spec().vm)).rejects.toMatchObject(refusal);
    await expect(create()).rejects.toMatchObject(refusal);
    await expect(create()).rejects.toThrow(`image ${one().file} of disk raw of VM vm1 is called raw`);
    for await (const artifact of provider.listArtifacts()) expect.unreachable(artifact.what);
  });

  it('refuses a backing file unless it is allowed, then reads through it', async () => {
    await platform.close();
    await use((folder) => [disk(folder, 'cow', 'qcow2')]);
    const below = join(platform.folder, 'base.raw');
    await writeFile(below, Buffer.alloc(MIB, 'b'));
    qemuImg('create', '-q', '-f', 'qcow2', '-b', below, '-F', 'raw', one().file);
    await expect(create()).rejects.toMatchObject({ code: 'BACKING_FILE', message: expect.stringContaining(below) });
    one().allowBacking = true;
    await create();
    const reader = await openReader(await provider.openAccess(spec().run, one().diskKey, proxyId('p1')), seams);
    const bytes = Buffer.alloc(MIB);
    await reader.read({ offset: 0, length: MIB }, bytes, new AbortController().signal);
    await reader.close();
    expect(bytes.equals(Buffer.alloc(MIB, 'b'))).toBe(true);
  });

  it('refuses an image that a running VM holds, and names it', async () => {
    await writeFile(one().file, Buffer.alloc(MIB));
    // A paused machine with the image as its disk: it holds the lock as a running one does.
    const disks = ['-blockdev', `driver=file,node-name=f,filename=${one().file}`, '-device', 'virtio-blk-pci,drive=f'];
    const machine = ['-M', 'q35,accel=tcg', '-m', '64', '-nodefaults', '-display', 'none', '-S'];
    const holder = spawn('qemu-system-x86_64', [...machine, ...disks], { stdio: 'ignore' });
    try {
      const power = async (): Promise<string> => (await provider.inspectVm(spec().vm)).power;
      await expect.poll(power, { timeout: 10_000 }).toBe('on');
      await expect(create()).rejects.toMatchObject({
        code: 'IMAGE_IN_USE',
        message: expect.stringContaining(one().file),
      });
    } finally {
      const ended = new Promise((resolve) => holder.once('exit', resolve));
      holder.kill();
      await ended;
    }
    await create();
  });

  it('gives an image another identity when it is replaced, not when it is written', async () => {
    await writeFile(one().file, Buffer.alloc(MIB));
    const identity = async () => (await provider.inspectVm(spec().vm)).disks[0]!.identity;
    const first = await identity();
    const file = await open(one().file, 'r+');
    await file.write('changed');
    await file.close();
    expect(await identity()).toBe(first);
    await writeFile(`${one().file}.2`, Buffer.alloc(MIB));
    await rename(`${one().file}.2`, one().file);
    expect(await identity()).not.toBe(first);
  });

  it('does not call a checkpoint whole whose daemon died', async () => {
    await writeFile(one().file, Buffer.alloc(MIB));
    await create();
    const pidFile = join(platform.folder, 'state', 'runs', 'td-s1-abcdefghijk1-qsd0', 'pid');
    const pid = Number(await readFile(pidFile, 'utf8'));
    process.kill(pid, 'SIGKILL');
    await expect.poll(() => provider.findCheckpoint(spec().run)).toBeNull();
    await expect(create()).rejects.toMatchObject({ code: 'CHECKPOINT_LOST' });
    expect(await provider.releaseCheckpoint(spec().run)).toEqual({ referencePoint: null, merge: 'done' });
  });
});
