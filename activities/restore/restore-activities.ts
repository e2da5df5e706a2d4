/** Restores on a proxy: files in the folders its configuration allows. */
import type { RestorePool } from '../../engines/mover/restore-client/pool.ts';
import type { RestoreProgress } from '../../engines/mover/restore-client/restore-spec.ts';
import { createTargets, discardTargets, finishTargets } from '../../engines/restore/targets.ts';
import { WINDOW_BYTES, windowCountOf } from '../../schema/domain/extents.ts';
import type { TargetAccess } from '../../schema/domain/restore-point.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import { noStageTimes } from '../../schema/domain/stages.ts';
import { beating } from '../beating.ts';
import type { ProxyActivities, ProxyControlActivities } from '../contract.ts';
import { translating } from '../failures.ts';
import { transferring } from '../transfer/transfer-beat.ts';

type TargetActivities = Omit<ProxyControlActivities, 'connectMovers'>;
type RestoreActivities = Pick<ProxyActivities, 'restoreDisk'>;

/** `brakesOf`: of the storage that a folder lies on, as the machine is configured now. */
export type TargetDependencies = {
  allowedFolders: readonly string[];
  brakesOf: (folder: string) => Promise<Pick<TargetAccess, 'brakes'>>;
};

export function createTargetActivities({ allowedFolders, brakesOf }: TargetDependencies): TargetActivities {
  return translating({
    createTargets: (request) =>
      beating(async () => {
        const brakes = await brakesOf(request.folder);
        return (await createTargets({ ...request, allowedFolders })).map((target) => ({ ...target, ...brakes }));
      }),
    finishTargets: (of) => beating(() => finishTargets(of)),
    discardTargets: (of) => beating(() => discardTargets(of)),
  } satisfies TargetActivities);
}

/** In its heartbeats `readBytes` is what the repository sent, `sentBytes` what was written. */
export function createRestoreActivities({ pool, clock }: { pool: RestorePool; clock: Clock }): RestoreActivities {
  return translating({
    restoreDisk: async (of) => {
      const { sizeBytes } = of.target;
      const start = figuresOf({ ...nothingYet, bytesTotal: sizeBytes });
      return await transferring({ disk: of.diskKey, start, clock }, async (signal, tell) => {
        const onProgress = (progress: RestoreProgress): void => tell(figuresOf(progress));
        const { diskKey, receivedBytes, writtenBytes, stages } = await pool.restoreDisk({ ...of, signal, onProgress });
        return { diskKey, sizeBytes, receivedBytes, writtenBytes, stages };
      });
    },
  } satisfies RestoreActivities);
}

const nothingYet = { bytesDone: 0, receivedBytes: 0, writtenBytes: 0, waitsFor: null, stages: { ...noStageTimes } };

const figuresOf = ({ bytesDone, bytesTotal, receivedBytes, writtenBytes, waitsFor, stages }: RestoreProgress) => ({
  bytesDone,
  bytesTotal,
  readBytes: receivedBytes,
  sentBytes: writtenBytes,
  windowsAcked: bytesDone === bytesTotal ? windowCountOf(bytesTotal) : Math.floor(bytesDone / WINDOW_BYTES),
  windowCount: windowCountOf(bytesTotal),
  waitsFor,
  stages,
});
