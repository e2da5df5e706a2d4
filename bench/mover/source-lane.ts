/** Source lane of the bench: each block is unlike any other; a half of it compresses. */
import { randomBytes } from 'node:crypto';
import { parentPort } from 'node:worker_threads';
import { runSourceLane } from '../../engines/mover/source/lane.ts';
import type { AllocatedExtent, Extent } from '../../schema/domain/extents.ts';
import type { DiskReader } from '../../schema/domain/seams.ts';
import { createSeams } from '../../workers/runtime/seams.ts';
import type { DiskModel } from './disk-model.ts';

const MIB = 1024 * 1024;
const SPARSE_STEP = 16 * MIB;
const PAGE = 4096;
/** Pages in turn: random bytes, text. */
const pattern = randomBytes(4 * MIB);
for (let at = 0; at < pattern.length; at += 2 * PAGE)
  pattern.fill(`text of page ${at}, of which nobody learns; `, at, at + PAGE);

function* extentsOf({ kind }: DiskModel, of: Extent): Generator<AllocatedExtent> {
  const end = of.offset + of.length;
  const step = kind === 'full' ? MIB : SPARSE_STEP;
  for (let at = of.offset; at < end;) {
    const isData = at % step < MIB;
    const next = Math.floor(at / step) * step + (isData ? MIB : step);
    yield { offset: at, length: Math.min(next, end) - at, state: isData ? 'data' : 'unallocated' };
    at = next;
  }
}

function fill({ offset }: Extent, into: Uint8Array): void {
  const view = Buffer.from(into.buffer, into.byteOffset, into.length);
  for (let at = 0; at < view.length; at += pattern.length) pattern.copy(view, at);
  // Its place in the disk makes a page its own.
  for (let at = 0; at < view.length; at += PAGE) view.writeDoubleLE(offset + at, at);
}

runSourceLane({
  port: parentPort!,
  seams: createSeams('bench-source-lane'),
  openReader: async (access): Promise<DiskReader> => {
    if (access.data.via !== 'simulated') throw new Error('the bench reads its own model only');
    const model = JSON.parse(access.data.model) as DiskModel;
    return {
      sizeBytes: model.sizeBytes,
      // oxlint-disable-next-line typescript/require-await -- the seam is asynchronous
      async *allocatedExtents(of) {
        yield* extentsOf(model, of);
      },
      async *changedExtents() {},
      read: async (of, into) => fill(of, into),
      close: async () => undefined,
    };
  },
});
