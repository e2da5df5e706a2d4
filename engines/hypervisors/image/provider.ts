/**
 * Images at rest, through a read-only `qemu-storage-daemon`. Its words and ours:
 *   image lock   -> what makes a checkpoint: while the daemon holds the images, no VM can start on them
 *   export       -> what a `DiskAccess` names; one per disk, named by its key
 *   (none)       -> reference point: nothing remembers what changed, so digests are compared
 */
import { brakesFor } from '../brakes.ts';
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type HostConfig, type ImageVmConfig, readsOffHost } from '../../../schema/domain/configuration.ts';
import { messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type {
  Artifact,
  BaseVerdict,
  Capabilities,
  Checkpoint,
  CheckpointDisk,
  CheckpointSpec,
  DiskAccess,
  DiskFacts,
  GuestEvent,
  Reason,
  ReferencePoint,
  Released,
  VmFacts,
  VmRef,
  VmSummary,
} from '../../../schema/domain/hypervisor.ts';
import {
  artifactName,
  type DiskKey,
  isRunKey,
  parseArtifactName,
  type RunKey,
  type SiteId,
} from '../../../schema/domain/ids.ts';
import type { Finding } from '../../../schema/domain/states.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import { type ArtifactLedger, createArtifactLedger } from '../ledger.ts';
import { oneAtATime } from '../one-at-a-time.ts';
import type { Freezer, HypervisorProvider } from '../provider.ts';
import { endStorageDaemon, findStorageDaemon, startStorageDaemon } from '../storage-daemon.ts';
import { type ImageDisk, type ImageFacts, inspectImage, noOtherWriter } from './facts.ts';

export type ImageProviderOptions = {
  host: Extract<HostConfig, { provider: 'image' }>;
  site: SiteId;
  /** The host's own; ledger and run folders live in it. Short: sockets lie below it. */
  stateFolder: string;
  seams: Seams;
};

const capabilities: Capabilities = {
  quiesce: 'none',
  tracking: 'none',
  referencePointAt: 'release',
  trackingSurvivesCrash: false,
  poweredOff: true,
  offHost: readsOffHost.image,
  atomicDisks: true,
  namesArtifacts: true,
  restore: false,
  instantRecovery: false,
};

const CONNECTIONS_PER_DISK = 32;

export function createImageProvider(options: ImageProviderOptions): HypervisorProvider {
  return new ImageProvider(options);
}

class ImageProvider implements HypervisorProvider {
  readonly #host: ImageProviderOptions['host'];
  readonly #site: SiteId;
  readonly #stateFolder: string;
  readonly #seams: Seams;
  readonly #oneAtATime = oneAtATime();
  #openedLedger: Promise<ArtifactLedger> | null = null;

  constructor({ host, site, stateFolder, seams }: ImageProviderOptions) {
    this.#host = host;
    this.#site = site;
    this.#stateFolder = stateFolder;
    this.#seams = seams;
  }

  async capabilities(): Promise<Capabilities> {
    return await Promise.resolve(capabilities);
  }

  async *listVms(): AsyncGenerator<VmSummary> {
    for (const config of this.#host.vms) {
      const disks: VmSummary['disks'] = [];
      let inUse = false;
      for (const disk of config.disks) {
        const facts = await inspectImage({ ...disk, vmName: config.name }).catch((error: unknown) => {
          this.#seams.log.warn('an image cannot be inspected', { vm: config.name, cause: messageOf(error) });
          return null;
        });
        if (!facts) continue;
        inUse ||= facts.inUse;
        disks.push({ diskKey: disk.diskKey, sizeBytes: facts.sizeBytes });
      }
      yield { vm: this.#refOf(config), name: config.name, power: inUse ? 'on' : 'off', disks };
    }
  }

  async inspectVm(vm: VmRef): Promise<VmFacts> {
    const config = this.#vmOf(vm);
    const disks: DiskFacts[] = [];
    let userCheckpoints = 0;
    let inUse = false;
    for (const disk of config.disks) {
      const facts = await inspectImage({ ...disk, vmName: config.name });
      disks.push(diskFacts(disk, facts));
      userCheckpoints = Math.max(userCheckpoints, facts.internalSnapshots);
      inUse ||= facts.inUse;
    }
    const power = inUse ? 'on' : 'off';
    const notes = disks.flatMap(({ why }): Finding[] =>
      why ? [{ level: 'warning', code: 'BAD_DISK', message: why }] : [],
    );
    const ref = this.#refOf(config);
    return { vm: ref, name: config.name, power, firmware: 'bios', disks, userCheckpoints, referencePoints: [], notes };
  }

  async judgeBase(vm: VmRef, base: ReferencePoint | null): Promise<BaseVerdict[]> {
    return await Promise.resolve(this.#vmOf(vm).disks.map(({ diskKey }) => judge(diskKey, base)));
  }

  async createCheckpoint(spec: CheckpointSpec, _freezer: Freezer): Promise<Checkpoint> {
    const config = this.#vmOf(spec.vm);
    const folder = this.#folderOf(spec.run);
    if (spec.consistency === 'require')
      throw new TidemarkError('GUEST_REQUIRED', `images of VM ${config.name} have no guest that could be frozen`, {
        vmId: config.vmId,
      });
    return await this.#oneAtATime(spec.run, async () => {
      const taken = await readCheckpoint(folder);
      if (taken) {
        if (await findStorageDaemon(folder)) return taken;
        throw lost(spec.run);
      }
      // What a first try left: nobody was told of it.
      await this.#endRun(spec.run, config);
      return await this.#takeCheckpoint(spec, config, folder);
    });
  }

  async #takeCheckpoint(spec: CheckpointSpec, config: ImageVmConfig, folder: string): Promise<Checkpoint> {
    const { chosen, leftOut } = await chooseDisks(spec, config);
    const ledger = await this.#ledger();
    const artifact = this.#artifactOf(spec.run, config);
    await ledger.intend([artifact]);
    try {
      const daemon = await startStorageDaemon(daemonSpec(folder, chosen));
      await ledger.made([artifact], String(daemon.pid));
      await assertUnchanged(chosen);
      const checkpoint: Checkpoint = {
        run: spec.run,
        vm: this.#refOf(config),
        takenAt: new Date(this.#seams.clock.now()).toISOString(),
        reached: 'crash',
        ...(spec.consistency === 'prefer' ? { reachedWhy: notFrozen } : {}),
        frozenMs: null,
        disks: chosen.map(({ disk, facts }): CheckpointDisk => ({
          ...diskFacts(disk, facts),
          verdict: judge(disk.diskKey, spec.base),
        })),
        leftOut,
      };
      await writeCheckpoint(folder, checkpoint);
      return checkpoint;
    } catch (error) {
      await this.#endRun(spec.run, config).catch((also: unknown) => {
        this.#seams.log.warn('a failed checkpoint could not be undone', { run: spec.run, cause: messageOf(also) });
      });
      throw error;
    }
  }

  async findCheckpoint(run: RunKey): Promise<Checkpoint | null> {
    const folder = this.#folderOf(run);
    const checkpoint = await readCheckpoint(folder);
    return checkpoint && (await findStorageDaemon(folder)) ? checkpoint : null;
  }

  async openAccess(run: RunKey, diskKey: DiskKey): Promise<DiskAccess> {
    const folder = this.#folderOf(run);
    const daemon = await findStorageDaemon(folder);
    const checkpoint = await readCheckpoint(folder);
    const disk = checkpoint?.disks.find((one) => one.diskKey === diskKey);
    if (!daemon) throw lost(run);
    if (!disk)
      throw new TidemarkError('NOT_FOUND', `checkpoint of run ${run} has no disk ${diskKey}`, { run, diskKey });
    const { sizeBytes, identity } = disk;
    const at = { unix: daemon.nbdSocket };
    const data = { via: 'nbd' as const, at, export: diskKey, maxConnections: CONNECTIONS_PER_DISK };
    const file = this.#vmOf(checkpoint!.vm).disks.find((one) => one.diskKey === diskKey)?.file ?? null;
    const brakes = brakesFor(this.#host, file);
    return { run, diskKey, sizeBytes, identity, writable: false, data, changes: null, ...brakes };
  }

  /** Connections end with the daemon; nothing is open on this side of them. */
  async closeAccess(): Promise<void> {
    await Promise.resolve();
  }

  async releaseCheckpoint(run: RunKey): Promise<Released> {
    await this.#oneAtATime(run, () => this.#endRun(run, null));
    return { referencePoint: null, merge: 'done' };
  }

  async awaitMerge(): Promise<void> {
    await Promise.resolve();
  }

  async commitReferencePoint(): Promise<void> {
    await Promise.resolve();
  }

  async discardReferencePoint(): Promise<void> {
    await Promise.resolve();
  }

  /** An image at rest has no events. */
  async *watch(_run: RunKey, signal: AbortSignal): AsyncGenerator<GuestEvent> {
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    yield* [];
  }

  /** From the ledger and, should that be lost, from the names of the run folders. */
  async *listArtifacts(): AsyncGenerator<Artifact> {
    const seen = new Set<string>();
    for (const { artifact } of (await this.#ledger()).list()) {
      seen.add(artifact.platformName);
      yield artifact;
    }
    const folders = await readdir(join(this.#stateFolder, 'runs')).catch(() => []);
    for (const name of folders) {
      const ours = parseArtifactName(name);
      const vm = this.#host.vms[0];
      if (ours && ours.site === this.#site && vm && !seen.has(name)) yield this.#artifactOf(ours.run, vm);
    }
  }

  async removeArtifact(artifact: Artifact): Promise<void> {
    const name = parseArtifactName(artifact.platformName);
    if (artifact.site !== this.#site || name?.site !== this.#site || name.run !== artifact.run)
      throw new TidemarkError('NOT_OURS', `${artifact.what} is not of site ${this.#site}`, { ...artifact });
    await this.releaseCheckpoint(artifact.run);
  }

  async close(): Promise<void> {
    await (await this.#openedLedger)?.close();
    this.#openedLedger = null;
  }

  /** Ends the daemon and forgets the run; already gone is success. */
  async #endRun(run: RunKey, config: ImageVmConfig | null): Promise<void> {
    const folder = this.#folderOf(run);
    await endStorageDaemon(folder, this.#seams.clock);
    await rm(folder, { recursive: true, force: true });
    const ledger = await this.#ledger();
    const name = this.#nameOf(run);
    const entries = ledger.list().filter(({ artifact }) => artifact.platformName === name);
    await ledger.remove(entries.map(({ artifact }) => artifact));
    if (config) await ledger.remove([this.#artifactOf(run, config)]);
  }

  #ledger(): Promise<ArtifactLedger> {
    this.#openedLedger ??= createArtifactLedger(this.#stateFolder, this.#seams.log).catch((error: unknown) => {
      this.#openedLedger = null;
      throw error;
    });
    return this.#openedLedger;
  }

  #vmOf(vm: VmRef): ImageVmConfig {
    const config = this.#host.vms.find(({ vmId }) => vmId === vm.vmId);
    if (config) return config;
    const { hostId } = this.#host;
    throw new TidemarkError('VM_NOT_FOUND', `host ${hostId} has no VM ${vm.vmId}`, { hostId, vmId: vm.vmId });
  }

  #refOf = (config: ImageVmConfig): VmRef => ({ vmId: config.vmId, hostId: this.#host.hostId });
  #nameOf = (run: RunKey): string => artifactName(this.#site, run, 'qsd', 0);

  #folderOf(run: RunKey): string {
    if (!isRunKey(run)) throw new TidemarkError('BAD_REQUEST', `${run} is not a run key`, { run });
    return join(this.#stateFolder, 'runs', this.#nameOf(run));
  }

  #artifactOf(run: RunKey, config: ImageVmConfig): Artifact {
    const platformName = this.#nameOf(run);
    const what = `qemu-storage-daemon in ${this.#folderOf(run)}`;
    return { kind: 'temporary', site: this.#site, run, vm: this.#refOf(config), what, platformName };
  }
}

const notFrozen: Reason = { code: 'NOT_QUIESCED', message: 'an image at rest has no guest that could be frozen' };

/** Nothing tracks an image, so digests are compared, unless it is known that there is nothing to compare with. */
function judge(diskKey: DiskKey, base: ReferencePoint | null): BaseVerdict {
  if (base && !base.disks.some((disk) => disk.diskKey === diskKey))
    return { diskKey, use: 'full', reason: { code: 'NEW_DISK', message: `disk ${diskKey} was not there before` } };
  return {
    diskKey,
    use: 'compare',
    reason: { code: 'NO_TRACKING', message: 'nothing tracks the changes of an image at rest' },
  };
}

function diskFacts(disk: ImageDisk, { sizeBytes, identity, inUse }: ImageFacts): DiskFacts {
  const facts = { diskKey: disk.diskKey, sizeBytes, sectorBytes: 512 as const, identity, shared: false };
  const why = inUse ? `image ${disk.file} is held by another process` : sizeBytes === 0 ? emptyOf(disk).message : null;
  return why === null ? { ...facts, snapshotOk: true } : { ...facts, snapshotOk: false, why };
}

const emptyOf = (disk: ImageDisk): Reason => ({
  code: 'BAD_DISK',
  message: `image ${disk.file} of disk ${disk.diskKey} is empty (0 bytes); give it content or take it out of the host configuration`,
});

type ChosenDisk = { disk: ImageDisk; facts: ImageFacts };

/** What has no bytes has nothing to restore: it is left out and said so; a VM of nothing else is refused. */
async function chooseDisks(
  spec: CheckpointSpec,
  config: ImageVmConfig,
): Promise<{ chosen: ChosenDisk[]; leftOut: Checkpoint['leftOut'] }> {
  const chosen: ChosenDisk[] = [];
  const leftOut: Checkpoint['leftOut'] = [];
  for (const diskKey of spec.disks) {
    const disk = config.disks.find((one) => one.diskKey === diskKey);
    const facts = disk ? await inspectImage({ ...disk, vmName: config.name }) : null;
    if (!disk || !facts)
      leftOut.push({ diskKey, why: { code: 'NOT_FOUND', message: `VM ${config.name} has no disk ${diskKey}` } });
    else if (facts.inUse)
      throw new TidemarkError('IMAGE_IN_USE', `image ${disk.file} of disk ${diskKey} is held by another process`, {
        diskKey,
        file: disk.file,
      });
    else if (facts.sizeBytes === 0) leftOut.push({ diskKey, why: emptyOf(disk) });
    else chosen.push({ disk, facts });
  }
  if (chosen.length > 0) return { chosen, leftOut };
  const reasons = leftOut.map(({ why }) => why.message).join('; ');
  throw new TidemarkError('BAD_DISK', `VM ${config.name} has no disk to back up: ${reasons || 'none was asked for'}`);
}

/** The facts were taken before the lock: another image may have taken the place of this one in between. */
async function assertUnchanged(chosen: readonly ChosenDisk[]): Promise<void> {
  for (const { disk, facts } of chosen) {
    const now = await inspectImage(disk);
    if (now.identity !== facts.identity || now.sizeBytes !== facts.sizeBytes)
      throw new TidemarkError('PLATFORM_BUSY', `image ${disk.file} changed while it was opened`, { file: disk.file });
  }
}

function daemonSpec(folder: string, chosen: readonly ChosenDisk[]): Parameters<typeof startStorageDaemon>[0] {
  const nodes = chosen.flatMap(({ disk, facts }, index) => [
    {
      driver: facts.isBlockDevice ? 'host_device' : 'file',
      'node-name': `file${index}`,
      filename: disk.file,
      'read-only': true,
      locking: 'on',
    },
    { ...noOtherWriter, 'node-name': `lock${index}`, image: `file${index}`, 'read-only': true },
    {
      driver: disk.format,
      'node-name': `disk${index}`,
      file: `lock${index}`,
      'read-only': true,
      // Not even a backing file named since the inspection is followed.
      ...(disk.format === 'qcow2' && !disk.allowBacking ? { backing: null } : {}),
    },
  ]);
  const exports = chosen.map(({ disk }, index) => ({
    id: `exp${index}`,
    node: `disk${index}`,
    name: disk.diskKey,
    writable: false,
  }));
  return { folder, blockdevs: nodes, exports, maxConnections: CONNECTIONS_PER_DISK * chosen.length };
}

const lost = (run: RunKey): TidemarkError =>
  new TidemarkError('CHECKPOINT_LOST', `the images of run ${run} are not held any more`, { run });

const checkpointFile = (folder: string): string => join(folder, 'checkpoint.json');

async function readCheckpoint(folder: string): Promise<Checkpoint | null> {
  const text = await readFile(checkpointFile(folder), 'utf8').catch(() => null);
  return text === null ? null : (JSON.parse(text) as Checkpoint);
}

/** Written last: with it, and with a living daemon, the checkpoint is there; without it there was none. */
async function writeCheckpoint(folder: string, checkpoint: Checkpoint): Promise<void> {
  await mkdir(folder, { recursive: true });
  const file = await open(`${checkpointFile(folder)}.new`, 'w');
  try {
    await file.writeFile(JSON.stringify(checkpoint));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${checkpointFile(folder)}.new`, checkpointFile(folder));
}
