/** A reader and a writer that ask before each request, and tell how long it took. */
import type { BrakeConfig } from '../../schema/domain/configuration.ts';
import type { DiskReader, DiskWriter } from '../../schema/domain/seams.ts';
import type { RequestEnd } from './brakes.ts';
import type { PortCalls } from './port-calls.ts';
import type { LaneClock } from './stage-clock.ts';

/** `begin` resolves with the number of a request that may begin; `latencyMs` null: it failed. */
export type Permits = {
  begin(bytes: number): Promise<number>;
  end(request: number, latencyMs: number | null): void;
};

/** Of the main thread, for disk `id`; null where nothing brakes it. */
export function permitsOf(calls: PortCalls, id: number, brakes: readonly BrakeConfig[] | undefined): Permits | null {
  if (!brakes) return null;
  return {
    begin: (bytes) => calls.call<number>('beginRequest', id, bytes),
    end: (request, latencyMs) => calls.notify('endRequest', { request, latencyMs } satisfies RequestEnd),
  };
}

export const brakedReader = (reader: DiskReader, permits: Permits, clock: LaneClock): DiskReader => ({
  sizeBytes: reader.sizeBytes,
  allocatedExtents: (of) => reader.allocatedExtents(of),
  changedExtents: (of) => reader.changedExtents(of),
  read: (of, into, signal) => braked(permits, clock, 'source', of.length, () => reader.read(of, into, signal)),
  close: () => reader.close(),
});

/** Only what has bytes is held back: zeros are holes, and a flush takes as long as what was written before it. */
export const brakedWriter = (writer: DiskWriter, permits: Permits, clock: LaneClock): DiskWriter => ({
  sizeBytes: writer.sizeBytes,
  write: (offset, bytes, signal) =>
    braked(permits, clock, 'target', bytes.length, () => writer.write(offset, bytes, signal)),
  zero: (of, signal) => writer.zero(of, signal),
  flush: () => writer.flush(),
  close: () => writer.close(),
});

async function braked(
  permits: Permits,
  clock: LaneClock,
  place: 'source' | 'target',
  bytes: number,
  work: () => Promise<void>,
): Promise<void> {
  const request = await clock.holdBack(place, () => permits.begin(bytes));
  const startedMs = performance.now();
  let latencyMs: number | null = null;
  try {
    await work();
    latencyMs = Math.max(0, clock.heardMs - startedMs);
  } finally {
    permits.end(request, latencyMs);
  }
}
