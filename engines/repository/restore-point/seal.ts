/** Sealing: the finished maps, checked; then the manifest, last (invariants 2 and 4). */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type {
  AuditResult,
  Manifest,
  ManifestDisk,
  SealOutcome,
  SealRequest,
} from '../../../schema/domain/restore-point.ts';
import type { AuditOutcome } from '../../../schema/repository/documents.ts';
import { FORMAT_VERSION } from '../../../schema/repository/limits.ts';
import { buildMap } from './build-map.ts';
import { findDecision, settle, whileClosing, writeManifest, type Decision } from './decision.ts';
import { createFirstReferences } from './first-references.ts';
import type { OpenDisk, OpenPoint } from './open-point.ts';
import type { Parts } from './parts.ts';
import { newestSealed, notOpen, requireOpen } from './points.ts';

/** In the run's turn. Sealed before: the same outcome. */
export async function sealRestorePoint(parts: Parts, request: SealRequest): Promise<SealOutcome> {
  const { restorePointId: id, run } = request;
  const before = parts.points.sealed.get(id);
  if (before?.manifest.run === run) return before;
  const point = requireOpen(parts.points, id, run);
  const decision = await whileClosing(point, () => decide(parts, point, request));
  await settle(parts, id, decision);
  if (decision.state === 'sealed') {
    await parts.sealing.after(decision.sealed);
    return decision.sealed;
  }
  throw notOpen(decision);
}

async function decide(parts: Parts, point: OpenPoint, request: SealRequest): Promise<Decision> {
  const found = await findDecision(parts, point.head);
  if (found) return found;
  const disks = disksToSeal(point, request);
  return parts.turns.take('pages', async () => {
    const sealed: ManifestDisk[] = [];
    const firsts = createFirstReferences(point.head.restorePointId);
    for (const disk of disks) {
      const transfer = request.transfers.find((one) => one.diskKey === disk.head.plan.diskKey);
      const { root, height, conservation } = await buildMap({ ...parts, point, disk, firsts });
      const { readBytes = 0, sentBytes = 0 } = transfer ?? {};
      sealed.push({ ...manifestDiskOf(disk), root, height, conservation, readBytes, sentBytes });
    }
    const base = disks.find((disk) => disk.head.base)?.head.base?.restorePointId ?? null;
    const manifest = await manifestOf(parts, point, request, { disks: sealed, base });
    await parts.sealing.before(manifest);
    return writeManifest(parts, manifest);
  });
}

/** Assigned disks but those left out. NOT_CONSERVED when one that was declared is neither here nor said to be left out. */
function disksToSeal(point: OpenPoint, { leftOut }: SealRequest): OpenDisk[] {
  const out = new Set(leftOut.map((one) => one.diskKey));
  const missing = point.head.declared.find((one) => !point.disks.has(one.diskKey) && !out.has(one.diskKey));
  if (missing) {
    const message = `disk ${missing.diskKey} was declared, but is neither transferred nor left out`;
    throw new TidemarkError('NOT_CONSERVED', message, { diskKey: missing.diskKey });
  }
  return [...point.disks.values()]
    .filter((disk) => !out.has(disk.head.plan.diskKey))
    .sort((a, b) => a.head.number - b.head.number);
}

type DiskFacts = Omit<ManifestDisk, 'root' | 'height' | 'conservation' | 'readBytes' | 'sentBytes'>;

const manifestDiskOf = ({ head: { plan, blockSize, base, filterDigest, audit } }: OpenDisk): DiskFacts => ({
  diskKey: plan.diskKey,
  identity: plan.identity,
  sizeBytes: plan.sizeBytes,
  blockSize,
  filterDigest,
  baseRoot: base?.root ?? null,
  mode: plan.mode,
  reason: plan.reason,
  audit: auditResultOf(audit),
});

function auditResultOf(audit: AuditOutcome | undefined): AuditResult {
  if (!audit) return { sampled: 0, mismatched: 0 };
  const { sampled, mismatched, firstMismatch } = audit;
  return { sampled, mismatched, ...(mismatched > 0 ? { firstMismatch } : {}) };
}

async function manifestOf(
  parts: Parts,
  point: OpenPoint,
  request: SealRequest,
  of: { disks: ManifestDisk[]; base: RestorePointId | null },
): Promise<Manifest> {
  const { head } = point;
  const { spec } = head;
  return {
    format: FORMAT_VERSION,
    repository: parts.file.repository,
    restorePointId: head.restorePointId,
    run: spec.run,
    lineage: spec.lineage,
    vm: { ...spec.vm, name: spec.vmName },
    jobId: spec.jobId,
    sessionId: spec.sessionId,
    nominalTime: spec.nominalTime,
    takenAt: request.takenAt,
    sealedAt: sealTime(parts, spec.vm.vmId),
    writer: WRITER,
    baseRestorePointId: of.base,
    consistency: request.consistency,
    warnings: request.warnings,
    leftOut: request.leftOut,
    referencePoint: request.referencePoint,
    disks: of.disks,
    configurationRoot: null,
    ledgerDigest: await point.ledger.digest(),
    suspect: false,
  };
}

/** Name and version of what writes manifests. */
const WRITER = 'tidemark 0.1';

/** Never before an earlier seal of this VM: which restore point is the last must not depend on a clock set back. */
function sealTime({ points, seams }: Parts, vmId: string): string {
  const newest = newestSealed(points, (manifest) => manifest.vm.vmId === vmId);
  const after = newest === null ? 0 : Date.parse(newest.sealedAt) + 1;
  return new Date(Math.max(seams.clock.now(), after)).toISOString();
}
