/** The source's lanes: threads shared by all disks of a proxy. */
import type { TransferSummary } from '../../../schema/domain/restore-point.ts';
import { LanePool, type LanePoolOptions } from '../lane-pool.ts';
import { brakeCalls, Brakes, type RequestEnd } from '../brakes.ts';
import type { ItemDone, LaneAudit, LaneItem, LaneProgress } from './lane.ts';
import { RunningTransfer } from './running-transfer.ts';
import type { SourceLanes } from './read-depth.ts';
import type { TransferOrder } from './transfer-order.ts';

export type { TransferOrder, TransferProgress } from './transfer-order.ts';

export type SourcePool = {
  /**
   * Resolves when every window is acknowledged. Throws the target's refusal (FENCED, RESTORE_POINT_*, REPOSITORY_FULL, ...),
   * the reader's error, TRANSFER_FAILED after `patienceMs` without a target, or the signal's reason.
   */
  transfer(order: TransferOrder): Promise<TransferSummary>;
  /** Ends the threads; transfers in work fail with HOST_DRAINING. */
  close(): Promise<void>;
};

/** `laneEntry`: a module that calls `runSourceLane`. */
export function createSourcePool(options: LanePoolOptions & SourceLanes): SourcePool {
  const brakes = new Brakes(options.seams.clock, 'read');
  const requests = brakeCalls(brakes, (id) => lanes.get(id));
  const onNotice = (name: string, value: unknown, lane: number): void => {
    if (name === 'progress') lanes.get((value as LaneProgress).transferId)?.progress(value as LaneProgress, lane);
    if (name === 'endRequest') requests.end(lane, value as RequestEnd);
    if (name === 'audit') lanes.get((value as LaneAudit).transferId)?.audit(value as LaneAudit);
  };
  const lanes = new LanePool<LaneItem, ItemDone, RunningTransfer>({
    ...options,
    itemsPerLane: 1,
    onNotice,
    handlersOf: (lane) => ({ beginRequest: (id: number, bytes: number) => requests.begin(lane, id, bytes) }),
    onGone: (lane) => brakes.endLane(lane),
  });
  let nextId = 0;

  return {
    transfer: async (order) => {
      const transfer = new RunningTransfer((nextId += 1), order, options.seams, options);
      brakes.configure(order.access.brakes ?? []);
      try {
        return await lanes.run(transfer, order.signal);
      } finally {
        // Everything is acknowledged, or has failed already.
        await lanes.end(transfer.id, transfer.failed).catch(() => undefined);
      }
    },
    close: () => lanes.close(),
  };
}
