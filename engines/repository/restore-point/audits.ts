/**
 * Audits of change tracking (invariant 11): before the first window of a disk that is read by CBT, the source hashes some
 * of the blocks that are called unchanged, and what it says is compared with the base. Whoever asks again, after a crash,
 * is asked for the same blocks; what came of it is in the head of the open restore point.
 */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { Reason } from '../../../schema/domain/hypervisor.ts';
import type { LineageId, RestorePointId } from '../../../schema/domain/ids.ts';
import type { Manifest } from '../../../schema/domain/restore-point.ts';
import type { AuditAnswers, AuditStep } from '../../../schema/domain/seams.ts';
import { digestOf, isZero } from '../../../schema/repository/digest.ts';
import type { AuditOutcome, HeadDisk } from '../../../schema/repository/documents.ts';
import { DIGEST_BYTES } from '../../../schema/repository/limits.ts';
import { AuditSample, auditSizeOf } from './audit-sample.ts';
import { baseEntries, commonBlocksOf } from './base-view.ts';
import { saveHead, type OpenDisk, type OpenPoint } from './open-point.ts';
import type { Parts } from './parts.ts';
import { newestFirst, recentlyChanged, sealedOfLineage } from './recently-changed.ts';
import { protocolError } from './window-frame.ts';

/** Blocks asked for at once. */
const BLOCKS_AT_ONCE = 256;

export type AuditParts = Pick<Parts, 'points' | 'pages' | 'storage' | 'vault' | 'turns' | 'tracking'> & {
  /** Removed restore points of a lineage that can be brought back still. */
  trashedOf: (lineage: LineageId) => Promise<Manifest[]>;
  /** Marks a restore point; durable when it resolves. */
  suspect: (id: RestorePointId, why: Reason) => Promise<void>;
};

/** What a connection audits; `check` throws once it may not any more. */
export type Audited = { point: OpenPoint; disk: OpenDisk; binding: number; check(): void };

type Running = { sample: AuditSample; asked: number[]; mismatched: number; firstMismatch: number | null };

export type Audits = {
  isDue(disk: HeadDisk): boolean;
  begin(name: string, audited: Audited, changedBytes: number): Promise<AuditStep>;
  goOn(name: string, audited: Audited, answers: AuditAnswers): Promise<AuditStep>;
  /** The connection has ended. */
  end(name: string): void;
};

export function createAudits(parts: AuditParts): Audits {
  const running = new Map<string, Running>();

  async function nextStep(name: string, audited: Audited, audit: Running): Promise<AuditStep> {
    audit.asked = audit.sample.next(BLOCKS_AT_ONCE);
    const { audited: sampled, wanted } = audit.sample;
    if (audit.asked.length > 0) return { audited: sampled, wanted, blocks: audit.asked };
    running.delete(name);
    const { mismatched, firstMismatch } = audit;
    await conclude(parts, audited, { binding: audited.binding, sampled, mismatched, firstMismatch });
    return { audited: sampled, wanted: sampled, blocks: [] };
  }

  return {
    isDue: (disk) => disk.plan.mode === 'cbt' && (outcomeOf(disk)?.mismatched ?? 1) > 0,
    begin: async (name, audited, changedBytes) => {
      const { head } = audited.disk;
      const known = outcomeOf(head);
      if (head.plan.mode !== 'cbt') throw protocolError(head, `an audit of a disk that is read by ${head.plan.mode}`);
      if (known && known.mismatched > 0) throw await mismatch(parts, audited, known);
      if (known) return { audited: known.sampled, wanted: known.sampled, blocks: [] };
      const audit = { sample: await sampleOf(parts, audited, changedBytes), asked: [], mismatched: 0 };
      running.set(name, { ...audit, firstMismatch: null });
      return nextStep(name, audited, running.get(name)!);
    },
    goOn: async (name, audited, answers) => {
      const audit = running.get(name);
      if (audit?.asked.length !== answers.classes.length)
        throw protocolError(audited.disk.head, `${answers.classes.length} blocks of an audit that were not asked for`);
      await compare(parts, audited.disk.head, audit, answers);
      audited.check();
      return nextStep(name, audited, audit);
    },
    end: (name) => void running.delete(name),
  };
}

/** Of the disk as it is read now; what was found of another checkpoint or base says nothing. */
const outcomeOf = ({ audit, binding }: HeadDisk): AuditOutcome | null => (audit?.binding === binding ? audit : null);

async function sampleOf(parts: AuditParts, { point, disk }: Audited, changedBytes: number): Promise<AuditSample> {
  const { head } = disk;
  const { restorePointId, spec } = point.head;
  const seed = `${restorePointId} ${head.plan.diskKey}`;
  const turn = digestOf(Buffer.from(`${seed} turn`)).readUInt32LE(0);
  const hot = await recentlyChanged(parts, { disk: head, lineage: spec.lineage, turn });
  const blockCount = commonBlocksOf(head);
  const wanted = auditSizeOf({ blockCount, blockSize: head.blockSize, changedBytes });
  return new AuditSample({ seed, blockCount, hot, wanted });
}

/** A block whose page of the base is lost is none to compare: it is not counted. */
async function compare({ pages }: AuditParts, head: HeadDisk, audit: Running, answers: AuditAnswers): Promise<void> {
  let at = 0;
  let count = 0;
  for (const [index, kind] of answers.classes.entries()) {
    const digest = answers.digests.subarray(at, at + DIGEST_BYTES);
    if (kind === 'data') at += DIGEST_BYTES;
    const block = audit.asked[index]!;
    const [base] = kind === 'changed' ? [null] : await baseEntries(pages, head, block, 1);
    if (!base) continue;
    count += 1;
    if (kind === 'zero' ? isZero(base) : Buffer.compare(base, digest) === 0) continue;
    audit.mismatched += 1;
    audit.firstMismatch = Math.min(audit.firstMismatch ?? block, block);
  }
  audit.sample.note(count);
}

/** AUDIT_MISMATCH. The marks come before the outcome: who is killed between the two audits again, and marks again. */
async function conclude(parts: AuditParts, audited: Audited, outcome: AuditOutcome): Promise<void> {
  const { point, disk } = audited;
  const error = outcome.mismatched > 0 ? await mismatch(parts, audited, outcome) : null;
  await parts.turns.take(`run ${point.head.spec.run}`, async () => {
    audited.check();
    const fresh = { ...disk.head, audit: outcome };
    const next = { ...point.head, disks: point.head.disks.map((one) => (one === disk.head ? fresh : one)) };
    await saveHead(parts, next);
    point.head = next;
    disk.head = fresh;
  });
  if (error) throw error;
}

/**
 * Marks restore points of the lineage back to the last that was read whole, and says so. Whether or not this run is sealed,
 * nobody counts on what tracking says since its base any more.
 */
async function mismatch(
  { points, trashedOf, suspect, tracking }: AuditParts,
  { point, disk }: Audited,
  { sampled, mismatched, firstMismatch }: AuditOutcome,
): Promise<TidemarkError> {
  const { plan, blockSize } = disk.head;
  const { diskKey } = plan;
  const offset = (firstMismatch ?? 0) * blockSize;
  if (disk.head.base) await tracking.distrust(disk.head.base.restorePointId, diskKey);
  const suspects: RestorePointId[] = [];
  const { lineage } = point.head.spec;
  for (const manifest of newestFirst([...sealedOfLineage(points, lineage), ...(await trashedOf(lineage))])) {
    const mode = manifest.disks.find((one) => one.diskKey === diskKey)?.mode;
    if (mode !== undefined && mode !== 'cbt') break;
    if (mode) suspects.push(manifest.restorePointId);
  }
  const found = `${mismatched} of ${sampled} audited blocks of disk ${diskKey} have changed although change tracking calls them unchanged, the first at byte ${offset}`;
  const why = { code: 'AUDIT_MISMATCH', message: `${found}; found when run ${point.head.spec.run} read it` };
  for (const id of suspects) await suspect(id, why);
  const marked = `restore points marked suspect: ${suspects.length}`;
  const details = { diskKey, sampled, mismatched, offset, suspects: suspects.length };
  return new TidemarkError('AUDIT_MISMATCH', `${found}; ${marked}`, details);
}
