/** Looks at a running VM through its monitor: which disks it has, under which key each is known, and all dirty bitmaps. */
import { stat } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import type { QemuVmConfig } from '../../../schema/domain/configuration.ts';
import type { VmPower } from '../../../schema/domain/hypervisor.ts';
import { type DiskKey, diskKey } from '../../../schema/domain/ids.ts';
import type { Finding } from '../../../schema/domain/states.ts';
import { fileIdentity } from '../file-identity.ts';
import { keepsBitmaps } from '../image/facts.ts';
import { type Commands, type QmpDevice, type QmpNode, queryNodes } from './qmp-shapes.ts';
import { type Bitmap, untrackedFormat, type VmDisk, type VmView } from './vm-view.ts';

/** Nodes that stand on another one and pass its bytes on. */
const filterDrivers = new Set(['copy-before-write', 'throttle', 'copy-on-read', 'compress', 'preallocate']);
/** Nodes that fetch bytes of a file, below those that know its format. */
const protocolDrivers = new Set(['file', 'host_device', 'nbd', 'nfs', 'rbd', 'iscsi', 'https', 'http', 'ssh', 'nvme']);
const EXPORT_ROUNDING_BYTES = 512;

/** States of a VM, and of a migration, in which it is not this host's for good. */
const inTransit = new Set(['inmigrate', 'postmigrate', 'finish-migrate']);
const migrating = new Set([
  'setup',
  'active',
  'wait-unplug',
  'pre-switchover',
  'device',
  'cancelling',
  'postcopy-active',
  'postcopy-paused',
  'postcopy-recover',
]);

/** The VM's own state is asked last: a migration that has just been completed leaves it in one of the above. */
export async function isMigrating(monitor: Commands): Promise<boolean> {
  const migration = await monitor.execute<{ status?: string }>('query-migrate');
  const { status } = await monitor.execute<{ status: string }>('query-status');
  return inTransit.has(status) || migrating.has(migration.status ?? '');
}

/** `known`: keys under which disks of this VM were met before. VM_OFF, UNREACHABLE as the monitor. */
export async function viewRunning(
  monitor: Commands,
  config: QemuVmConfig,
  known: ReadonlySet<DiskKey>,
): Promise<VmView> {
  const { status } = await monitor.execute<{ status: string }>('query-status');
  const devices = await monitor.execute<QmpDevice[]>('query-block');
  const nodes = await queryNodes(monitor);
  const keys = new Set<string>();
  const disks: VmDisk[] = [];
  const notes: Finding[] = [];
  for (const device of devices.filter(isDisk)) {
    const chain = chainOf(device.inserted, nodes);
    const key = await keyOf(device, chain, config, known, keys);
    keys.add(key);
    if (device.inserted.ro) {
      notes.push(readOnlyNote(key));
      continue;
    }
    if (await tellsErrors(monitor, device)) notes.push(errorsToldNote(key));
    disks.push(await diskOf(monitor, device, chain[0]!, key, config));
  }
  return {
    power: powerOf(status),
    firmware: devices.some(isFlash) ? 'uefi' : 'bios',
    notes,
    userCheckpoints: Math.max(0, ...nodes.map((node) => node.image.snapshots?.length ?? 0)),
    disks,
    bitmaps: bitmapsOf(nodes),
  };
}

type Inserted = QmpDevice & { inserted: QmpNode };
const isFlash = ({ device, qdev = '' }: QmpDevice): boolean => /^pflash\d/.test(device) || /flash/.test(qdev);
const isDisk = (device: QmpDevice): device is Inserted =>
  device.inserted !== undefined && !device.removable && !isFlash(device);

function powerOf(status: string): VmPower {
  if (status === 'running') return 'on';
  return status === 'shutdown' ? 'off' : 'paused';
}

/** The node that holds the disk's format, then those it stands on. Filters, also those of our own jobs, are looked through. */
function chainOf(inserted: QmpNode, nodes: readonly QmpNode[]): QmpNode[] {
  const nodeOf = (file: string): QmpNode | undefined => {
    const same = nodes.filter((node) => node.file === file && !filterDrivers.has(node.drv));
    return same.find((node) => !protocolDrivers.has(node.drv)) ?? same[0];
  };
  const named = nodes.find((node) => node['node-name'] === inserted['node-name']);
  const top = filterDrivers.has(inserted.drv) ? nodeOf(inserted.file) : named;
  const chain = [top ?? inserted];
  for (let below = chain[0]!.backing_file; below; below = chain.at(-1)!.backing_file) {
    const node = nodeOf(below);
    if (!node || chain.includes(node)) break;
    chain.push(node);
  }
  return chain;
}

/**
 * A disk keeps its key when an external snapshot is laid over it: first comes what the configuration says of its files,
 * then a key met before, then the name of its topmost named node, then that of its device.
 */
async function keyOf(
  device: QmpDevice,
  chain: readonly QmpNode[],
  config: QemuVmConfig,
  known: ReadonlySet<DiskKey>,
  taken: ReadonlySet<string>,
): Promise<DiskKey> {
  const names = chain.map((node) => node['node-name']).filter((name) => !name.startsWith('#'));
  const configured = config.disks ?? [];
  const byFile: string[] = [];
  for (const disk of configured)
    for (const node of chain) if (await isSameFile(disk.file, fileOf(node))) byFile.push(disk.diskKey);
  const byName = names.filter(
    (name) => known.has(diskKey(name)) || configured.some((disk) => disk.diskKey === diskKey(name)),
  );
  const candidates = [...byFile, ...byName, ...names, device.device, deviceName(device.qdev ?? '')];
  const key = candidates.find((name) => name !== '' && !taken.has(name));
  return diskKey(key ?? `disk-${taken.size}`);
}

/** `/machine/peripheral/NAME/virtio-backend` or `NAME` -> NAME, in the letters of a disk key. */
function deviceName(qdev: string): string {
  const words = qdev.split('/').filter((word) => word !== '' && word !== 'virtio-backend');
  return (words.at(-1) ?? '')
    .replaceAll(/[^A-Za-z0-9._-]+/g, '-')
    .replaceAll(/^[^A-Za-z0-9]+|-+$/g, '')
    .slice(0, 31);
}

/** A node with options that a name cannot say is named by them all: `json:{...}`. */
function fileOf({ file }: QmpNode): string {
  if (!file.startsWith('json:')) return file;
  try {
    const options = JSON.parse(file.slice('json:'.length)) as { filename?: unknown; file?: { filename?: unknown } };
    const name = options.filename ?? options.file?.filename;
    return typeof name === 'string' ? name : file;
  } catch {
    return file;
  }
}

async function isSameFile(a: string, b: string): Promise<boolean> {
  if (a === b) return true;
  if (!isAbsolute(a) || !isAbsolute(b)) return false;
  const [one, other] = await Promise.all([stat(a).catch(() => null), stat(b).catch(() => null)]);
  return one !== null && other !== null && one.ino === other.ino && one.dev === other.dev;
}

async function diskOf(
  monitor: Commands,
  device: QmpDevice,
  node: QmpNode,
  key: DiskKey,
  config: QemuVmConfig,
): Promise<VmDisk> {
  const configured = config.disks?.find((disk) => disk.diskKey === key);
  // A relative name is relative to a folder of QEMU's that we do not know.
  const named = fileOf(node);
  const file = isAbsolute(named) ? named : (configured?.file ?? null);
  const stats = file === null ? null : await stat(file, { bigint: true }).catch(() => null);
  const virtualBytes = node.image['virtual-size'];
  const fileBytes = node.drv === 'raw' && stats?.isFile() ? Number(stats.size) : virtualBytes;
  const isRounded = virtualBytes - fileBytes > 0 && virtualBytes - fileBytes < EXPORT_ROUNDING_BYTES;
  const sizeBytes = isRounded ? fileBytes : virtualBytes;
  const facts = {
    diskKey: key,
    sizeBytes,
    sectorBytes: (await property(monitor, device, 'logical_block_size')) === 4096 ? (4096 as const) : (512 as const),
    identity: stats ? fileIdentity(node.drv, file!, stats) : `${node.drv}:${named}`,
    shared: (await property(monitor, device, 'share-rw')) === true,
  };
  return {
    facts:
      sizeBytes > 0
        ? { ...facts, snapshotOk: true }
        : { ...facts, snapshotOk: false, why: `disk ${key} is empty (0 bytes)` },
    node: node['node-name'],
    format: node.drv,
    file,
    untracked: untrackedFormat(node.drv, keepsBitmaps(node.drv, node.image['format-specific']?.data.compat)),
  };
}

export const bitmapsOf = (nodes: readonly QmpNode[]): Bitmap[] =>
  nodes
    .filter((node) => !filterDrivers.has(node.drv))
    .flatMap((node) =>
      (node['dirty-bitmaps'] ?? []).flatMap(({ name, recording, busy, inconsistent, granularity }) =>
        name === undefined
          ? []
          : [
              {
                name,
                node: node['node-name'],
                recording,
                busy,
                inconsistent: inconsistent === true,
                granularity,
                readOnly: node.ro,
              },
            ],
      ),
    );

const property = (monitor: Commands, { qdev }: QmpDevice, name: string): Promise<unknown> =>
  monitor.execute('qom-get', { path: qdev, property: name }).catch(() => undefined);

/** Whether the guest is told of an error in writing, where QEMU would else stop it until there is space again. */
const tellsErrors = async (monitor: Commands, device: QmpDevice): Promise<boolean> =>
  ['report', 'ignore'].includes(String(await property(monitor, device, 'werror')));

const errorsToldNote = (key: DiskKey): Finding => ({
  level: 'warning',
  code: 'WRITE_ERRORS_TOLD',
  message: `disk ${key} tells its guest of errors in writing: with full scratch space the guest would get them (set werror=enospc)`,
});

const readOnlyNote = (key: DiskKey): Finding => ({
  level: 'warning',
  code: 'READ_ONLY_DISK',
  message: `disk ${key} is attached read-only and is not backed up`,
});
