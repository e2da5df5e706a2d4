/** A reader and a writer that ask before each request, and tell how long it took. */
import type { BrakeConfig } from '../../schema/domain/configuration.ts';
import type { DiskReader, DiskWriter } from '../../schema/domain/seams.ts';
import type { RequestEnd } from './brakes.ts';
import type { PortCalls } from './port-calls.ts';
import type { LaneClock } from './stage-clock.ts';
import { unlessAborted } from './waiting.ts';

/** `begin` resolves with the number of a request that may begin; `latencyMs` null: it failed. */
export type Permits = {
  begin: (bytes: number) => Promise<number>;
  end: (request: number, latencyMs: number | null) => void;
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
  read: (of, into, signal) =>
    braked({ permits, clock, place: 'source', signal }, of.length, () => reader.read(of, into, signal)),
  close: () => reader.close(),
});

/** Only what has bytes is held back: zeros are holes, and a flush takes as long as what was written before it. */
export const brakedWriter = (writer: DiskWriter, permits: Permits, clock: LaneClock): DiskWriter => ({
  sizeBytes: writer.sizeBytes,
  write: (offset, bytes, signal) =>
    braked({ permits, clock, place: 'target', signal }, bytes.length, () => writer.write(offset, bytes, signal)),
  zero: (of, signal) => writer.zero(of, signal),
  flush: () => writer.flush(),
  close: () => writer.close(),
});

type Braking = { permits: Permits; clock: LaneClock; place: 'source' | 'target'; signal: AbortSignal };

async function braked({ permits, clock, place, signal }: Braking, bytes: number, work: () => Promise<void>) {
  const request = await clock.holdBack(place, () => permitOf(bytes, permits, signal));
  const startedMs = performance.now();
  let latencyMs: number | null = null;
  try {
    await work();
    latencyMs = Math.max(0, clock.heardMs - startedMs);
  } finally {
    permits.end(request, latencyMs);
  }
}

/** A permit that comes too late is given back. */
async function permitOf(bytes: number, { begin, end }: Permits, signal: AbortSignal): Promise<number> {
  const permit = begin(bytes);
  try {
    return await unlessAborted(permit, signal);
  } catch (error) {
    if (signal.aborted) void permit.then((request) => end(request, null)).catch(() => undefined);
    throw error;
  }
}
