/** What a repository holds, and whom it serves. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { PointStatistics, RepositoryStatistics } from '../../../schema/domain/maintenance.ts';
import type { SealOutcome } from '../../../schema/domain/restore-point.ts';
import { freeBytesOf, type Storage } from '../storage/storage.ts';
import { countReferences, type References } from './count-references.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';

export type Statistics = {
  ofRepository(signal: AbortSignal): Promise<RepositoryStatistics>;
  /** RESTORE_POINT_NOT_FOUND. */
  ofPoint(id: RestorePointId, signal: AbortSignal): Promise<PointStatistics>;
};

type Counted = { points: SealOutcome[]; references: References };

/** `deadBytes`: as the last collection of this process left it. */
export function createStatistics(parts: MaintenanceParts, deadBytes: () => number | null): Statistics {
  let last: { name: string; counted: Counted } | null = null;

  /** As long as the restore points are the same, so is what they need. */
  const count = (signal: AbortSignal): Promise<Counted> =>
    parts.turns.take('statistics', async () => {
      const points = [...parts.points.sealed.values()];
      const name = points.map(({ restorePointId }) => restorePointId).join();
      if (last?.name === name) return last.counted;
      const counted = { points, references: await countReferences(parts, points, signal) };
      last = { name, counted };
      return counted;
    });

  return {
    ofRepository: async (signal) => {
      const { points, references } = await count(signal);
      const { vms, byVm, byPoint, deduplicatedBytes, storedBytes } = references;
      const free = await freeBytesOf(parts.storage);
      return {
        restorePoints: points.length,
        vms: vms.length,
        logicalBytes: byPoint.reduce((sum, { logicalBytes }) => sum + logicalBytes, 0),
        deduplicatedBytes,
        storedBytes,
        deadBytes: deadBytes(),
        trashBytes: await trashBytesOf(parts.storage),
        freeBytes: Number.isFinite(free) ? free : null,
        time: await timeOf(parts),
        byVm: vms.map((vmId, at) => ({
          vmId,
          ...namedOf(points, vmId),
          ...byVm[at]!,
        })),
      };
    },
    ofPoint: async (id, signal) => {
      const { points, references } = await count(signal);
      const at = points.findIndex(({ restorePointId }) => restorePointId === id);
      if (at >= 0) return references.byPoint[at]!;
      throw new TidemarkError('RESTORE_POINT_NOT_FOUND', `no sealed restore point ${id}`, { restorePointId: id });
    },
  };
}

async function timeOf({ time }: Pick<MaintenanceParts, 'time'>): Promise<NonNullable<RepositoryStatistics['time']>> {
  const { nowMs, doubt } = await time.read();
  return { at: nowMs === null ? null : new Date(nowMs).toISOString(), doubt };
}

/** Name as of the newest. */
function namedOf(points: readonly SealOutcome[], vmId: string): { name: string; restorePoints: number } {
  const own = points.filter(({ manifest }) => manifest.vm.vmId === vmId).map(({ manifest }) => manifest);
  const newest = own.reduce((a, b) => (a.sealedAt < b.sealedAt ? b : a));
  return { name: newest.vm.name, restorePoints: own.length };
}

async function trashBytesOf({ store }: Storage): Promise<number> {
  let bytes = 0;
  for (const object of await store.listTrash()) {
    const file = await store.openTrashed(object);
    if (!file) continue;
    try {
      bytes += await file.lengthBytes();
    } finally {
      await file.close();
    }
  }
  return bytes;
}
