/** Restores on a proxy: files in the folders its configuration allows. */
import type { RestorePool } from '../../engines/mover/restore-client/pool.ts';
import { createTargets, discardTargets, finishTargets } from '../../engines/restore/targets.ts';
import { WINDOW_BYTES, windowCountOf } from '../../schema/domain/extents.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import { beating } from '../beating.ts';
import type { ProxyActivities, ProxyControlActivities } from '../contract.ts';
import { translating } from '../failures.ts';
import { transferring } from '../transfer/transfer-beat.ts';

type TargetActivities = Omit<ProxyControlActivities, 'connectMovers'>;
type RestoreActivities = Pick<ProxyActivities, 'restoreDisk'>;

export function createTargetActivities({ allowedFolders }: { allowedFolders: readonly string[] }): TargetActivities {
  return translating({
    createTargets: (request) => beating(() => createTargets({ ...request, allowedFolders })),
    finishTargets: (of) => beating(() => finishTargets(of)),
    discardTargets: (of) => beating(() => discardTargets(of)),
  } satisfies TargetActivities);
}

/** In its heartbeats `readBytes` is what the repository sent, `sentBytes` what was written. */
export function createRestoreActivities({ pool, clock }: { pool: RestorePool; clock: Clock }): RestoreActivities {
  return translating({
    restoreDisk: async (of) => {
      const { sizeBytes } = of.target;
      const figuresOf = (bytesDone: number, readBytes: number, sentBytes: number, waitsFor: string | null) => ({
        bytesDone,
        bytesTotal: sizeBytes,
        readBytes,
        sentBytes,
        windowsAcked: bytesDone === sizeBytes ? windowCountOf(sizeBytes) : Math.floor(bytesDone / WINDOW_BYTES),
        windowCount: windowCountOf(sizeBytes),
        waitsFor,
      });
      return await transferring({ disk: of.diskKey, start: figuresOf(0, 0, 0, null), clock }, async (signal, tell) => {
        const { diskKey, receivedBytes, writtenBytes } = await pool.restoreDisk({
          ...of,
          signal,
          onProgress: (p) => tell(figuresOf(p.bytesDone, p.receivedBytes, p.writtenBytes, p.waitsFor)),
        });
        return { diskKey, sizeBytes, receivedBytes, writtenBytes };
      });
    },
  } satisfies RestoreActivities);
}
