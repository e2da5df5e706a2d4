/** A session from its opening to its seal, with what each part of it took: source and lane in one, without wire and threads. */
import type { Repository } from '../../engines/repository/repository.ts';
import { WINDOW_BYTES, windowCountOf } from '../../schema/domain/extents.ts';
import type { RestorePointId } from '../../schema/domain/ids.ts';
import type { TransferAssignment } from '../../schema/domain/restore-point.ts';
import type { FinishedWindow, RecordSink, SourceClass } from '../../schema/domain/seams.ts';
import { DIGEST_BYTES } from '../../schema/repository/limits.ts';
import { DISK, planOf, runOf, sealOf, specOf } from '../../tests/fixtures/repository/test-repository.ts';
import { threadMs } from '../index/thread-time.ts';
import type { Content } from './content.ts';

type Shelf = { repository: Repository; sink: RecordSink };
/** `sent`: by block. `base` null: a full, of which all blocks are sent. */
export type Session = {
  number: number;
  sizeBytes: number;
  blockSize: number;
  base: RestorePointId | null;
  sent: ReadonlyMap<number, Content>;
};
/** `computeMs`: of the seal, what the thread computed. */
export type Sealed = { restorePointId: RestorePointId; openMs: number; sealMs: number; computeMs: number };
type Assigned = Omit<TransferAssignment, 'endpoint'>;

export async function backUp(shelf: Shelf, session: Session): Promise<Sealed> {
  const { repository } = shelf;
  const { number, sizeBytes, blockSize, base } = session;
  const run = runOf(number);
  const startedMs = performance.now();
  const { restorePointId } = await repository.openRestorePoint(specOf(run, { blockSize }));
  await repository.declareDisks({ restorePointId, run, disks: [{ diskKey: DISK, sizeBytes, identity: 'i0' }] });
  const disk = planOf(sizeBytes, base ? { mode: 'cbt', baseRestorePointId: base } : {});
  const of = { restorePointId, run, disk, checkpoint: `c-${run}`, assignment: 1 };
  const assignment = await repository.assignTransfer(of);
  const openMs = performance.now() - startedMs;
  await transfer(shelf, session, assignment);
  const [sealingMs, computingMs] = [performance.now(), threadMs()];
  await repository.seal(sealOf(restorePointId, run));
  return { restorePointId, openMs, sealMs: performance.now() - sealingMs, computeMs: threadMs() - computingMs };
}

async function transfer({ repository, sink }: Shelf, { sent }: Session, assignment: Assigned): Promise<void> {
  const { registrar } = repository;
  const { restorePointId, run, diskKey, fence, sizeBytes, blockSize } = assignment;
  const hello = { purpose: 'backup' as const, restorePointId, run, diskKey, fence, sizeBytes, blockSize };
  await registrar.begin(run, hello);
  const perWindow = WINDOW_BYTES / blockSize;
  for (let window = 0; window < windowCountOf(sizeBytes); window += 1) {
    const blocks = Array.from({ length: perWindow }, (_, at) => sent.get(window * perWindow + at) ?? null);
    if (blocks.every((block) => block === null)) await registrar.commitUntouched(run, window, 1);
    else await sendWindow({ repository, sink }, assignment, window, blocks);
  }
  await registrar.end(run);
}

/** Null: not read. */
type Blocks = readonly (Content | null)[];

async function sendWindow(shelf: Shelf, assignment: Assigned, windowIndex: number, blocks: Blocks): Promise<void> {
  const { registrar } = shelf.repository;
  const { run, blockSize, restorePointId } = assignment;
  const digests = Buffer.alloc(blocks.length * DIGEST_BYTES);
  const records: FinishedWindow['records'] = [];
  for (const [at, block] of blocks.entries()) {
    if (!block) continue;
    const { digest } = block;
    digests.set(digest, at * DIGEST_BYTES);
    const [answer] = await registrar.offer(run, windowIndex * blocks.length + at, digest);
    if (answer !== 'want') continue;
    const { codec, payload } = block;
    const place = shelf.sink.append({ digest, codec, rawLength: blockSize, payload, restorePointId });
    records.push({ digest, place });
  }
  await shelf.sink.sync();
  const classes = blocks.map((block): SourceClass => (block ? 'data' : 'not-read'));
  const dataBytes = records.length * blockSize;
  const declared = {
    notReadBytes: blocks.length * blockSize - dataBytes,
    unallocatedBytes: 0,
    zeroBytes: 0,
    dataBytes,
  };
  await registrar.commit(run, { windowIndex, classes, digests, records, declared });
}
