/**
 * Model of a simulated VM, in two files so that each has one writer:
 * `<vm>.guest.jsonl`, appended by whoever plays the guest and the operator (a test), and `<vm>.state.json`, replaced by the provider.
 * A position in the first file is a moment: what a disk held then, and what changed since another moment, follows from it.
 */
import { appendFile, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type Extent, subtract, union } from '../../../schema/domain/extents.ts';
import type { ErrorCode } from '../../../schema/domain/errors.ts';
import type { Checkpoint, ReferencePoint, VmPower } from '../../../schema/domain/hypervisor.ts';
import type { SimulatedDiskConfig } from '../../../schema/domain/configuration.ts';
import type { DiskKey, LineageId, RunKey, SiteId, VmId } from '../../../schema/domain/ids.ts';
import { contentOf, type DiskAtMoment } from './content.ts';

export type SimulatedDisk = SimulatedDiskConfig;

/** One line of the guest's file. */
export type GuestLine =
  | { kind: 'write'; diskKey: DiskKey; offset: number; length: number; seed: number }
  /** Another disk takes this one's place: new content, new identity. */
  | { kind: 'replace'; diskKey: DiskKey; seed: number }
  | { kind: 'resize'; diskKey: DiskKey; sizeBytes: number }
  | { kind: 'power'; power: VmPower }
  /** Tracking forgets, without knowing it, that anything was written there so far. */
  | { kind: 'bits-lost'; diskKey: DiskKey; offset: number; length: number }
  /** Reference points of before answer for nothing any more. */
  | { kind: 'tracking-lost' }
  /** The next `times` calls of `verb` wait `delayMs` and then fail with `code`, if one is given. */
  | { kind: 'fault'; verb: string; times: number; code?: ErrorCode; message?: string; delayMs?: number };

export type StoredCheckpoint = {
  site: SiteId;
  checkpoint: Checkpoint;
  lineage: LineageId;
  moment: number;
  /** Per disk with verdict 'changes': since which moment. */
  changesSince: Record<string, number>;
  released: boolean;
};

export type StoredReferencePoint = { site: SiteId; point: ReferencePoint; moment: number };

export type SimulatedState = {
  vmId: VmId;
  disks: SimulatedDisk[];
  checkpoints: Record<string, StoredCheckpoint>;
  referencePoints: StoredReferencePoint[];
  /** Calls that the fault of each guest line has hit. */
  faultsUsed: Record<string, number>;
};

export const modelPath = (stateFolder: string, vmId: VmId): string =>
  join(stateFolder, 'simulated', `${vmId}.state.json`);
const guestPath = (model: string): string => model.replace(/\.state\.json$/, '.guest.jsonl');

export async function readState(model: string): Promise<SimulatedState | null> {
  const text = await readFile(model, 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  });
  return text === null ? null : (JSON.parse(text) as SimulatedState);
}

export async function writeState(model: string, state: SimulatedState): Promise<void> {
  await mkdir(dirname(model), { recursive: true });
  await writeFile(`${model}.new`, JSON.stringify(state));
  await rename(`${model}.new`, model);
}

/** Whole lines only: a half one is still being written. */
export async function readGuest(model: string): Promise<GuestLine[]> {
  const text = await readFile(guestPath(model), 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  });
  const lines = text.slice(0, text.lastIndexOf('\n') + 1).split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as GuestLine);
}

/** Plays the guest and the operator of one simulated VM, from any process. */
export async function actOnSimulated(stateFolder: string, vmId: VmId, line: GuestLine): Promise<void> {
  const path = guestPath(modelPath(stateFolder, vmId));
  await mkdir(dirname(path), { recursive: true });
  await appendFile(path, `${JSON.stringify(line)}\n`);
}

/** A disk as it was after the first `moment` guest lines. */
export function diskAt(disk: SimulatedDisk, guest: readonly GuestLine[], moment: number): DiskAtMoment {
  const { sizeBytes, seed, image } = disk;
  const at: DiskAtMoment = { sizeBytes, seed, image, identity: `sim-${seed}`, writes: [] };
  for (const line of guest.slice(0, moment)) {
    if (!('diskKey' in line) || line.diskKey !== disk.diskKey) continue;
    if (line.kind === 'write') at.writes.push({ offset: line.offset, length: line.length, seed: line.seed });
    else if (line.kind === 'resize') at.sizeBytes = line.sizeBytes;
    else if (line.kind === 'replace')
      Object.assign(at, { seed: line.seed, image: undefined, identity: `sim-${line.seed}`, writes: [] });
  }
  return at;
}

/** What tracking reports of a disk between two moments, sorted. */
export function changedBetween(diskKey: DiskKey, guest: readonly GuestLine[], since: number, moment: number): Extent[] {
  let changed: Extent[] = [];
  for (const line of guest.slice(since, moment)) {
    if (!('diskKey' in line) || line.diskKey !== diskKey) continue;
    if (line.kind === 'write') changed.push({ offset: line.offset, length: line.length });
    else if (line.kind === 'bits-lost') changed = subtract(union(changed), line);
  }
  return union(changed);
}

/** What a simulated disk holds now: the oracle of tests, and nothing else. */
export async function readSimulated(stateFolder: string, disk: SimulatedDisk, vmId: VmId): Promise<Uint8Array> {
  const guest = await readGuest(modelPath(stateFolder, vmId));
  const at = diskAt(disk, guest, guest.length);
  const bytes = new Uint8Array(at.sizeBytes);
  contentOf(at, { offset: 0, length: at.sizeBytes }, bytes);
  return bytes;
}

export const isRunOpen = (state: SimulatedState, run: RunKey): boolean => {
  const stored = state.checkpoints[run];
  return stored !== undefined && !stored.released;
};
