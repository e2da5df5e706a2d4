/** Restores in the main thread's eyes: a few lane threads, a disk each; the rest wait their turn. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { TargetEndpoint } from '../../../schema/domain/hypervisor.ts';
import type { DiskKey, RestorePointId, RunKey } from '../../../schema/domain/ids.ts';
import type { TargetAccess } from '../../../schema/domain/restore-point.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import { startLaneThread } from '../lane-thread.ts';
import { ByteBudget } from '../waiting.ts';
import type { RestoreProgress, RestoreSpec, RestoreSummary } from './restore-spec.ts';

export type RestoreOrder = {
  run: RunKey;
  restorePointId: RestorePointId;
  diskKey: DiskKey;
  endpoint: TargetEndpoint;
  grant?: string;
  target: TargetAccess;
  signal: AbortSignal;
  onProgress?: (progress: RestoreProgress) => void;
  /** How long the repository may stay silent before TRANSFER_FAILED; default 10 min. */
  patienceMs?: number;
};

export type RestorePool = {
  /** Resolves when the disk is written and flushed. Goes on from `target.cursorFile`. Throws the target's refusal,
   * the writer's error, DAMAGED_BLOCK, BAD_PAYLOAD, TRANSFER_FAILED, or the signal's reason. */
  restoreDisk(order: RestoreOrder): Promise<RestoreSummary>;
  close(): Promise<void>;
};

const draining = (): TidemarkError => new TidemarkError('HOST_DRAINING', 'the restore lanes of this proxy are closed');

export function createRestorePool(options: {
  laneCount: number;
  laneEntry: URL;
  laneData?: unknown;
  seams: Seams;
}): RestorePool {
  const places = new ByteBudget(options.laneCount);
  const stops = new Set<() => Promise<void>>();
  let nextId = 0;
  let closed = false;

  async function restoreDisk(order: RestoreOrder): Promise<RestoreSummary> {
    await places.take(1, order.signal);
    try {
      return await inThread(order);
    } finally {
      places.give(1);
    }
  }

  async function inThread(order: RestoreOrder): Promise<RestoreSummary> {
    const { signal, onProgress, patienceMs = 600_000, ...rest } = order;
    const spec: RestoreSpec = { restoreId: (nextId += 1), patienceMs, ...rest };
    const thread = startLaneThread(options.laneEntry, options.laneData, {
      onNotice: (name, value) => (name === 'progress' ? onProgress?.(value as RestoreProgress) : undefined),
      onExit: () => undefined,
    });
    const stop = (): void => void thread.calls.call('stop').catch(() => undefined);
    signal.addEventListener('abort', stop, { once: true });
    stops.add(thread.terminate);
    try {
      return await thread.calls.call<RestoreSummary>('restore', spec);
    } catch (error) {
      signal.throwIfAborted();
      throw closed ? draining() : error;
    } finally {
      signal.removeEventListener('abort', stop);
      stops.delete(thread.terminate);
      await thread.terminate();
    }
  }

  return {
    restoreDisk,
    close: async () => {
      closed = true;
      places.fail(draining());
      await Promise.all([...stops].map((stop) => stop()));
    },
  };
}
