/** Giving a disk to a proxy: a new fence, durable before it is told; what the ledger stays bound to (invariants 1, 5, 8). */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { DiskPlan, Manifest, TransferAssignment, TransferRequest } from '../../../schema/domain/restore-point.ts';
import { canonicalJson } from '../../../schema/repository/checked-json.ts';
import type { BaseMap, HeadDisk } from '../../../schema/repository/documents.ts';
import { alsoReadOf } from './also-read.ts';
import { commonBlocksOf } from './base-view.ts';
import { newOpenDisk, saveHead, type OpenPoint } from './open-point.ts';
import type { Parts } from './parts.ts';
import { newestSealed, requireOpen, requireSealed } from './points.ts';

export type Assigned = Omit<TransferAssignment, 'endpoint'>;

/** In the run's turn. */
export async function assignTransfer(parts: Parts, request: TransferRequest): Promise<Assigned> {
  const point = requireOpen(parts.points, request.restorePointId, request.run);
  const given = point.disks.get(request.disk.diskKey)?.head ?? null;
  const disk = isRepeat(given, request) ? given : await giveFence(parts, point, given, request);
  return {
    restorePointId: request.restorePointId,
    run: request.run,
    diskKey: disk.plan.diskKey,
    fence: disk.fence,
    sizeBytes: disk.plan.sizeBytes,
    blockSize: disk.blockSize,
    compression: point.head.spec.compression,
    mode: disk.plan.mode,
    alsoRead: await alsoReadOf(parts, disk),
    ...(disk.plan.mode === 'comparison' ? { comparableBytes: comparableBytesOf(disk) } : {}),
  };
}

/** Up to where both have the same blocks; what lies beyond is read as in a full. */
const comparableBytesOf = (disk: HeadDisk): number =>
  Math.min(disk.plan.sizeBytes, commonBlocksOf(disk) * disk.blockSize);

function isRepeat(given: HeadDisk | null, request: TransferRequest): given is HeadDisk {
  const { assignment, disk, checkpoint } = request;
  if (!given || assignment > given.assignment) return false;
  const details = { diskKey: disk.diskKey, assignment, newest: given.assignment };
  if (assignment < given.assignment)
    throw new TidemarkError('FENCED', `assignment ${assignment} of disk ${disk.diskKey} is not the newest`, details);
  if (given.checkpoint === checkpoint && canonicalJson(given.plan) === canonicalJson(disk)) return true;
  const message = `assignment ${assignment} of disk ${disk.diskKey} was given for another plan or checkpoint`;
  throw new TidemarkError('BAD_REQUEST', message, details);
}

async function giveFence(
  parts: Parts,
  point: OpenPoint,
  given: HeadDisk | null,
  request: TransferRequest,
): Promise<HeadDisk> {
  const { disk: plan, checkpoint, assignment } = request;
  const { head } = point;
  const base = baseMapFor(parts, head.spec, plan);
  // Until the head names it: the restore point that it is of may be removed at any time.
  const release = base ? parts.reliance.hold({ ...base, blockSize: head.spec.blockSize }) : () => undefined;
  const fresh: HeadDisk = {
    number: given?.number ?? head.disks.length,
    binding: given?.binding ?? 1,
    fence: (given?.fence ?? 0) + 1,
    assignment,
    checkpoint,
    plan,
    blockSize: head.spec.blockSize,
    base,
    filterDigest: null,
    ...(given?.audit ? { audit: given.audit } : {}),
  };
  const isBound = given !== null && bindingOf(given) === bindingOf(fresh);
  if (given && !isBound) fresh.binding += 1;
  const next = {
    ...head,
    disks: given ? head.disks.map((one) => (one === given ? fresh : one)) : [...head.disks, fresh],
  };
  try {
    await saveHead(parts, next);
    point.head = next;
  } finally {
    release();
  }
  if (isBound) point.disks.get(plan.diskKey)!.head = fresh;
  else point.disks.set(plan.diskKey, newOpenDisk(fresh));
  // No frame of a lower fence comes after the answer.
  await point.ledger.idle();
  return fresh;
}

/** What the ledger's records are worth nothing without. The mode: what CBT left unread is not read by a comparison. */
const bindingOf = ({ checkpoint, plan, blockSize, base, filterDigest }: HeadDisk): string =>
  canonicalJson({ checkpoint, sizeBytes: plan.sizeBytes, mode: plan.mode, blockSize, base, filterDigest });

type Spec = OpenPoint['head']['spec'];

/** The map that unchanged blocks come from; null for a full. */
function baseMapFor({ points, tracking }: Parts, spec: Spec, plan: DiskPlan): BaseMap | null {
  const { baseRestorePointId: id, mode, diskKey } = plan;
  const refuse = (code: 'BAD_REQUEST' | 'TRACKING_LOST', why: string): never => {
    throw new TidemarkError(code, `disk ${diskKey} cannot be read by ${mode}: ${why}`, { diskKey, base: id });
  };
  if (mode === 'full') return id === null ? null : refuse('BAD_REQUEST', 'a full has no base');
  if (id === null) return refuse('BAD_REQUEST', 'no base was named');
  const { manifest } = requireSealed(points, id);
  if (mode === 'cbt' && newestSealed(points, (one) => one.lineage === spec.lineage)?.restorePointId !== id)
    return refuse('TRACKING_LOST', `restore point ${id} is not the last of lineage ${spec.lineage}`);
  // The run that found it may not have been sealed, and then nothing newer is there to build on.
  if (mode === 'cbt' && tracking.isDistrusted(id, diskKey))
    return refuse(
      'TRACKING_LOST',
      `since restore point ${id} tracking has lost changes: an audit found it, or the disk was smaller meanwhile`,
    );
  if (manifest.vm.vmId !== spec.vm.vmId) return refuse('BAD_REQUEST', `restore point ${id} is of another VM`);
  return mapOfDisk(manifest, spec, plan) ?? refuse('TRACKING_LOST', `restore point ${id} has no such disk to build on`);
}

function mapOfDisk(manifest: Manifest, spec: Spec, plan: DiskPlan): BaseMap | null {
  const disk = manifest.disks.find((one) => one.diskKey === plan.diskKey);
  if (disk?.blockSize !== spec.blockSize) return null;
  if (plan.mode === 'cbt' && disk.identity !== plan.identity) return null;
  const { root, height, sizeBytes } = disk;
  return { restorePointId: manifest.restorePointId, root, height, sizeBytes };
}
