/** A reader that asks before each read, and tells how long it took. */
import type { DiskReader } from '../../../schema/domain/seams.ts';
import type { LaneClock } from '../stage-clock.ts';
import { unlessAborted } from '../waiting.ts';

/** `begin` resolves with the number of a read that may begin; `latencyMs` null: it failed. */
export type ReadPermits = {
  begin(bytes: number): Promise<number>;
  end(read: number, latencyMs: number | null): void;
};

export const brakedReader = (reader: DiskReader, permits: ReadPermits, clock: LaneClock): DiskReader => ({
  sizeBytes: reader.sizeBytes,
  allocatedExtents: (of) => reader.allocatedExtents(of),
  changedExtents: (of) => reader.changedExtents(of),
  read: async (of, into, signal) => {
    const read = await clock.holdBack('source', () => permitOf(of.length, permits, signal));
    const startedMs = performance.now();
    let latencyMs: number | null = null;
    try {
      await reader.read(of, into, signal);
      latencyMs = Math.max(0, clock.heardMs - startedMs);
    } finally {
      permits.end(read, latencyMs);
    }
  },
  close: () => reader.close(),
});

/** A permit that comes too late is given back. */
async function permitOf(bytes: number, { begin, end }: ReadPermits, signal: AbortSignal): Promise<number> {
  const permit = begin(bytes);
  try {
    return await unlessAborted(permit, signal);
  } catch (error) {
    if (signal.aborted) void permit.then((read) => end(read, null)).catch(() => undefined);
    throw error;
  }
}
