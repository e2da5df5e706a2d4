/** An open restore point: its head, its ledger, and per disk which windows are durable. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { blockCountOf, windowCountOf } from '../../../schema/domain/extents.ts';
import type { DiskKey, RestorePointId } from '../../../schema/domain/ids.ts';
import type { TransferCursor } from '../../../schema/domain/seams.ts';
import { encodeHead, parseHead, type Head, type HeadDisk } from '../../../schema/repository/documents.ts';
import type { LedgerRecord } from '../../../schema/repository/ledger.ts';
import { headFile, readDocument, type SealedStorage } from '../storage/documents.ts';
import { layout } from '../storage/layout.ts';
import { openLedgerFile, type LedgerFile } from './ledger-file.ts';

/** `frames[w]`: ledger offset of the last frame of window w, -1 when it is not durable yet. */
export type OpenDisk = { head: HeadDisk; frames: Float64Array };

export type OpenPoint = {
  head: Head;
  ledger: LedgerFile;
  disks: Map<DiskKey, OpenDisk>;
  /** Set while it is sealed or aborted: windows are refused. */
  closing: boolean;
  /** Milliseconds since the epoch. */
  lastWriteAt: number;
};

export const newOpenDisk = (head: HeadDisk): OpenDisk => ({
  head,
  frames: new Float64Array(windowCountOf(head.plan.sizeBytes)).fill(-1),
});

/** Notes a durable frame; frames of another binding are void. */
export function noteFrame(point: OpenPoint, record: LedgerRecord, offset: number): void {
  const disk = [...point.disks.values()].find((one) => one.head.number === record.disk);
  if (!disk || disk.head.binding !== record.binding) return;
  disk.frames.fill(offset, record.firstWindow, record.firstWindow + record.windowCount);
}

/** Windows whose frame lies at `offset` or after it are not durable any more. */
function forgetFrames(point: OpenPoint, offset: number): void {
  for (const { frames } of point.disks.values())
    for (const [window, at] of frames.entries()) if (at >= offset) frames[window] = -1;
}

export function cursorOf(disk: OpenDisk): TransferCursor {
  const windowCount = disk.frames.length;
  const missing = disk.frames.indexOf(-1);
  const lowWater = missing < 0 ? windowCount : missing;
  const above: number[] = [];
  for (let window = lowWater + 1; window < windowCount; window += 1) if (disk.frames[window]! >= 0) above.push(window);
  return { lowWater, above, windowCount };
}

export const blocksOf = (disk: HeadDisk): number => blockCountOf(disk.plan.sizeBytes, disk.blockSize);

/** Makes the head durable; call before the change it holds is told to anyone. */
export async function saveHead({ storage, vault }: SealedStorage, head: Head): Promise<void> {
  const of = headFile(head.restorePointId);
  await storage.staging.replace(of.file, vault.sealText(of, encodeHead(head)));
}

/** Not zeros: some file systems store those for nothing. */
const RESERVE = 'room for a tombstone '.repeat(400).slice(0, 8192);

/** A new open restore point, durable when it returns. */
export async function createOpenPoint(shelf: SealedStorage, head: Head, nowMs: number): Promise<OpenPoint> {
  const { staging } = shelf.storage;
  try {
    await staging.replace(layout.reserve(head.restorePointId), RESERVE);
    await saveHead(shelf, head);
    return await openPoint(shelf, head, nowMs, () => true);
  } catch (error) {
    await staging.remove(layout.openFolder(head.restorePointId)).catch(() => undefined);
    throw error;
  }
}

/** Whether every record that a window names is there. */
export type Resolver = (record: LedgerRecord) => boolean;

/** What a process before this one left open; null when its head never became durable. REPOSITORY_CORRUPT for a damaged head; TAMPERED. */
export async function loadOpenPoint(
  shelf: SealedStorage,
  id: RestorePointId,
  nowMs: number,
  isWhole: Resolver,
): Promise<OpenPoint | null> {
  const { staging } = shelf.storage;
  const text = await readDocument(staging, shelf.vault, headFile(id));
  if (text === null) return null;
  const path = staging.locate(layout.head(id));
  const head = parseHead(text, path);
  if (head.restorePointId !== id)
    throw new TidemarkError('REPOSITORY_CORRUPT', `${path} is of restore point ${head.restorePointId}`, { path });
  return openPoint(shelf, head, nowMs, isWhole);
}

async function openPoint(
  { storage, vault }: SealedStorage,
  head: Head,
  nowMs: number,
  isWhole: Resolver,
): Promise<OpenPoint> {
  const disks = new Map(head.disks.map((disk) => [disk.plan.diskKey, newOpenDisk(disk)]));
  const point = { head, disks, closing: false, lastWriteAt: nowMs } as Omit<OpenPoint, 'ledger'> as OpenPoint;
  const { restorePointId: ledger } = head;
  const of = { staging: storage.staging, name: layout.ledger(ledger), vault, ledger };
  point.ledger = await openLedgerFile(of, {
    // A window whose blocks were lost is sent again.
    onRecord: (record, offset) => noteFrame(point, record, isWhole(record) ? offset : -1),
    onLost: (offset) => forgetFrames(point, offset),
  });
  return point;
}
