/** A reader that asks before each read, and tells how long it took. */
import type { DiskReader } from '../../../schema/domain/seams.ts';
import type { LaneClock } from '../stage-clock.ts';

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
    const read = await clock.holdBack('source', () => permits.begin(of.length));
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
