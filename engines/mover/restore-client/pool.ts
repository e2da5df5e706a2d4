/** Restores in the main thread's eyes: lane threads shared by all disks, and as many disks at a time as there are lanes. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { LanePool, type LanePoolOptions } from '../lane-pool.ts';
import { brakeCalls, Brakes, type RequestEnd } from '../brakes.ts';
import { ByteBudget, unlessAborted } from '../waiting.ts';
import { readCursor } from './cursor-file.ts';
import { DurableCursor } from './durable-cursor.ts';
import type {
  LaneDurable,
  LaneStages,
  RestoreItem,
  RestoreOrder,
  RestoreSummary,
  WindowWritten,
} from './restore-spec.ts';
import { type RestoreLanes, WINDOWS_PER_LANE } from './restore-depth.ts';
import { RunningRestore } from './running-restore.ts';

export type RestorePool = {
  /** Resolves when the disk is written and flushed. Goes on from `target.cursorFile`. Throws the target's refusal,
   * the writer's error, DAMAGED_BLOCK, BAD_PAYLOAD, TRANSFER_FAILED, or the signal's reason. */
  restoreDisk(order: RestoreOrder): Promise<RestoreSummary>;
  /** Ends the threads; restores in work fail with HOST_DRAINING. */
  close(): Promise<void>;
};

/** `laneEntry`: a module that calls `runRestoreLane`. */
export function createRestorePool(options: LanePoolOptions & RestoreLanes): RestorePool {
  const { laneCount, seams } = options;
  const places = new ByteBudget(laneCount);
  const cursors = new Map<number, DurableCursor>();
  const brakes = new Brakes(seams.clock, 'write');
  const requests = brakeCalls(brakes, (id) => lanes.get(id));
  const onNotice = (name: string, value: unknown, lane: number): void => {
    if (name === 'endRequest') requests.end(lane, value as RequestEnd);
    if (name === 'stages') lanes.get((value as LaneStages).restoreId)?.addStages((value as LaneStages).stages);
    if (name !== 'durable') return;
    const { restoreId, windows } = value as LaneDurable;
    lanes.get(restoreId)?.moved();
    cursors.get(restoreId)?.add(windows);
  };
  const lanes = new LanePool<RestoreItem, WindowWritten, RunningRestore>({
    ...options,
    itemsPerLane: WINDOWS_PER_LANE,
    onNotice,
    handlersOf: (lane) => ({ beginRequest: (id: number, bytes: number) => requests.begin(lane, id, bytes) }),
    onGone: (lane) => brakes.endLane(lane),
  });
  let nextId = 0;

  async function restore(order: RestoreOrder): Promise<RestoreSummary> {
    const { restorePointId, diskKey, target } = order;
    const identity = { restorePointId, diskKey, sizeBytes: target.sizeBytes };
    // Where the storage hangs, a restore can still be stopped.
    const begun = await unlessAborted(readCursor(target.cursorFile, identity), order.signal);
    const restoring = new RunningRestore((nextId += 1), order, begun, options);
    const cursor = new DurableCursor(target.cursorFile, begun, (error) => restoring.fail(error));
    cursors.set(restoring.id, cursor);
    brakes.configure(target.brakes ?? []);
    try {
      const summary = await lanes.run(restoring, order.signal);
      await lanes.finish(restoring, order.signal, () => cursor.idle());
      // Of the last flushes the lanes tell at their end.
      return { ...summary, stages: restoring.stages };
    } catch (error) {
      await lanes.end(restoring.id, true).catch(() => undefined);
      order.signal.throwIfAborted();
      throw error;
    } finally {
      cursors.delete(restoring.id);
    }
  }

  return {
    restoreDisk: async (order) => {
      await places.take(1, order.signal);
      try {
        return await restore(order);
      } finally {
        places.give(1);
      }
    },
    close: async () => {
      places.fail(new TidemarkError('HOST_DRAINING', 'the lanes of this proxy are closed'));
      await lanes.close();
    },
  };
}
