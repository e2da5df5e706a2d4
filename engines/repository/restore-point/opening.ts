/** Opening a restore point and declaring its disks. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { RestorePointId, RunKey } from '../../../schema/domain/ids.ts';
import type {
  BaseRestorePoint,
  Manifest,
  OpenedRestorePoint,
  RestorePointSpec,
} from '../../../schema/domain/restore-point.ts';
import type { DeclaredDisk, Head } from '../../../schema/repository/documents.ts';
import { FORMAT_VERSION } from '../../../schema/repository/limits.ts';
import { freeBytesOf } from '../storage/storage.ts';
import { createOpenPoint, saveHead } from './open-point.ts';
import type { Parts } from './parts.ts';
import { newestSealed, notOpen, requireOpen, stateOfRun } from './points.ts';

const LEAST_FREE_BYTES = 1024 * 1024;

export type Opened = Omit<OpenedRestorePoint, 'endpoint'>;

/** In the run's turn. */
export async function openRestorePoint(parts: Parts, spec: RestorePointSpec): Promise<Opened> {
  const known = stateOfRun(parts.points, spec.run);
  if (known && known.state !== 'open') throw notOpen(known);
  const head = known ? checkSame(known.point.head, spec) : await openNew(parts, spec);
  const { points, storage } = parts;
  const base = head.baseRestorePointId === null ? null : (points.sealed.get(head.baseRestorePointId)?.manifest ?? null);
  const compareWith = newestSealed(points, (manifest) => manifest.vm.vmId === head.spec.vm.vmId);
  return {
    restorePointId: head.restorePointId,
    base: base && baseOf(base),
    compareWith: compareWith && baseOf(compareWith),
    freeBytes: await freeBytesOf(storage),
  };
}

async function openNew(parts: Parts, spec: RestorePointSpec): Promise<Head> {
  const { points, seams } = parts;
  const nowMs = seams.clock.now();
  const head: Head = {
    format: FORMAT_VERSION,
    restorePointId: Buffer.from(seams.random.bytes(16)).toString('hex') as RestorePointId,
    openedAt: new Date(nowMs).toISOString(),
    spec,
    baseRestorePointId: newestSealed(points, (manifest) => manifest.lineage === spec.lineage)?.restorePointId ?? null,
    declared: [],
    disks: [],
  };
  points.open.set(head.restorePointId, await createOpenPoint(parts, head, nowMs));
  return head;
}

function checkSame(head: Head, spec: RestorePointSpec): Head {
  if (head.spec.lineage === spec.lineage && head.spec.vm.vmId === spec.vm.vmId) return head;
  throw new TidemarkError('BAD_REQUEST', `run ${spec.run} has a restore point of another VM or job`, {
    run: spec.run,
    restorePointId: head.restorePointId,
  });
}

const baseOf = ({ restorePointId, lineage, sealedAt, referencePoint, disks }: Manifest): BaseRestorePoint => ({
  restorePointId,
  lineage,
  sealedAt,
  referencePoint,
  disks: disks.map(({ diskKey, identity, sizeBytes, blockSize }) => ({ diskKey, identity, sizeBytes, blockSize })),
});

/** In the run's turn. Durable when it resolves; said again, the last word counts. */
export async function declareDisks(
  parts: Parts,
  of: { restorePointId: RestorePointId; run: RunKey; disks: DeclaredDisk[] },
): Promise<void> {
  const point = requireOpen(parts.points, of.restorePointId, of.run);
  const keys = new Set(of.disks.map((disk) => disk.diskKey));
  if (keys.size < of.disks.length)
    throw new TidemarkError('BAD_REQUEST', `a disk of run ${of.run} is declared twice`, { run: of.run });
  await checkRoom(parts);
  const declared = of.disks.map(({ diskKey, sizeBytes, identity }) => ({ diskKey, sizeBytes, identity }));
  const head = { ...point.head, declared };
  await saveHead(parts, head);
  point.head = head;
}

/** What compresses to how much nobody knows beforehand; without room for ledger and map there is no sense in trying. */
async function checkRoom({ storage }: Parts): Promise<void> {
  const freeBytes = await freeBytesOf(storage);
  if (freeBytes >= LEAST_FREE_BYTES) return;
  const folder = storage.staging.locate('');
  throw new TidemarkError('REPOSITORY_FULL', `${folder} has ${freeBytes} bytes free`, { folder, freeBytes });
}
