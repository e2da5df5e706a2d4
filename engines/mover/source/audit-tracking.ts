/**
 * The source's part of an audit of change tracking: the target names blocks, and of those that tracking calls unchanged it
 * is told what they hold. Nothing of it is a transfer: what is read here is in no window's sums.
 */
import { blockCountOf } from '../../../schema/domain/extents.ts';
import type { TransferAssignment } from '../../../schema/domain/restore-point.ts';
import type { AuditAnswers, AuditClass, AuditStep, DiskReader } from '../../../schema/domain/seams.ts';
import { refuse } from '../../../schema/wire/frame.ts';
import { digestOf, isZeroBlock } from '../block-codec.ts';
import { runSideBySide } from '../waiting.ts';
import type { SegmentBuffers } from './send-window.ts';
import type { SourceConnection } from './source-connection.ts';
import { blockExtent, readSetOf } from './window-plan.ts';

/** An audit of fewer blocks never reads so much that what changed could bound it. */
const SIZE_OF_BOUNDED_AUDITS_BYTES = 1024 ** 4;

/** Of blocks far apart, of which an audit has a few hundred: it is over before a depth could be found out. */
const READS_AT_ONCE = 4;

export type AuditWork = {
  reader: DiskReader;
  connection: Pick<SourceConnection, 'beginAudit' | 'goOnAudit'>;
  assignment: TransferAssignment;
  buffers: SegmentBuffers;
  signal: AbortSignal;
  onStep(step: Omit<AuditStep, 'blocks'>): void;
};

/** Resolves when nothing was found. AUDIT_MISMATCH; the reader's error. */
export async function auditTracking(work: AuditWork): Promise<void> {
  const { connection } = work;
  let step = await connection.beginAudit(await changedBytesOf(work));
  for (; step.blocks.length > 0; step = await connection.goOnAudit(await answersTo(work, step.blocks)))
    tell(work, step);
  tell(work, step);
}

const tell = (work: AuditWork, { audited, wanted }: AuditStep): void => work.onStep({ audited, wanted });

/** Of a disk whose audit may be bounded by it; else 0, which costs no walk over what changed. */
async function changedBytesOf({ reader, assignment }: AuditWork): Promise<number> {
  const { sizeBytes } = assignment;
  let changedBytes = 0;
  if (sizeBytes < SIZE_OF_BOUNDED_AUDITS_BYTES) return changedBytes;
  for await (const { length } of reader.changedExtents({ offset: 0, length: sizeBytes })) changedBytes += length;
  return changedBytes;
}

type Answer = { kind: AuditClass; digest: Buffer | null };

async function answersTo(work: AuditWork, blocks: readonly number[]): Promise<AuditAnswers> {
  const answers = new Map<number, Answer>();
  // In the order of the disk: heads of disks move less.
  const sorted = blocks.toSorted((a, b) => a - b);
  await runSideBySide(sorted, READS_AT_ONCE, async (block) => void answers.set(block, await answerTo(work, block)));
  const inOrder = blocks.map((block) => answers.get(block)!);
  return {
    classes: inOrder.map(({ kind }) => kind),
    digests: Buffer.concat(inOrder.map(({ digest }) => digest).filter((digest) => digest !== null)),
  };
}

async function answerTo(work: AuditWork, block: number): Promise<Answer> {
  const { reader, assignment, buffers, signal } = work;
  const { sizeBytes, blockSize } = assignment;
  const count = blockCountOf(sizeBytes, blockSize);
  if (block >= count) throw refuse('AUDIT_SAMPLE block', block, `below ${count}`);
  const of = blockExtent({ offset: 0, length: sizeBytes }, block, assignment);
  if ((await readSetOf(reader, assignment, of)).length > 0) return { kind: 'changed', digest: null };
  const buffer = buffers.take();
  try {
    const bytes = buffer.subarray(0, of.length);
    await reader.read(of, bytes, signal);
    return isZeroBlock(bytes) ? { kind: 'zero', digest: null } : { kind: 'data', digest: digestOf(bytes) };
  } finally {
    buffers.give(buffer);
  }
}
