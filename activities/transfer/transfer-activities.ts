/** Sending disks from a proxy to a repository. */
import { rehearse } from '../../engines/mover/rehearse.ts';
import type { SourcePool, TransferProgress } from '../../engines/mover/source/pool.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { windowCountOf } from '../../schema/domain/extents.ts';
import type { DiskAccess } from '../../schema/domain/hypervisor.ts';
import type { TransferAssignment } from '../../schema/domain/restore-point.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import { noStageTimes } from '../../schema/domain/stages.ts';
import { beating } from '../beating.ts';
import type { ProxyActivities, ProxyControlActivities } from '../contract.ts';
import { translating } from '../failures.ts';
import { transferring } from './transfer-beat.ts';

export type TransferDependencies = { pool: SourcePool; clock: Clock };
type TransferActivities = Pick<ProxyActivities, 'transferDisk'>;
type RehearsalActivities = Pick<ProxyControlActivities, 'connectMovers'>;

export function createTransferActivities({ pool, clock }: TransferDependencies): TransferActivities {
  return translating({
    transferDisk: async ({ access, assignment }) => {
      refuseMismatch(access, assignment);
      const { diskKey: disk, sizeBytes } = assignment;
      const start = figuresOf({ ...nothingYet, bytesTotal: sizeBytes, windowCount: windowCountOf(sizeBytes) });
      return await transferring({ disk, start, clock }, (signal, tell) =>
        pool.transfer({ access, assignment, signal, onProgress: (progress) => tell(figuresOf(progress)) }),
      );
    },
  } satisfies TransferActivities);
}

/** Step 4: before anything touches a guest. */
export function createRehearsalActivities(secure?: Parameters<typeof rehearse>[0]['secure']): RehearsalActivities {
  return translating({
    connectMovers: (of) => beating(async () => void (await rehearse({ ...of, secure }))),
  } satisfies RehearsalActivities);
}

const nothingYet = {
  bytesDone: 0,
  readBytes: 0,
  sentBytes: 0,
  windowsAcked: 0,
  waitsFor: null,
  audit: null,
  stages: { ...noStageTimes },
};

const figuresOf = (progress: Omit<TransferProgress, 'windowOpen'>) => ({
  bytesDone: progress.bytesDone,
  bytesTotal: progress.bytesTotal,
  readBytes: progress.readBytes,
  sentBytes: progress.sentBytes,
  windowsAcked: progress.windowsAcked,
  windowCount: progress.windowCount,
  waitsFor: progress.waitsFor,
  stages: progress.stages,
  ...(progress.audit ? { audit: progress.audit } : {}),
});

/** What is read and where it goes must be the same disk of the same run, or a restore point would hold another's bytes. */
function refuseMismatch(access: DiskAccess, assignment: TransferAssignment): void {
  for (const field of ['run', 'diskKey', 'sizeBytes'] as const) {
    if (access[field] === assignment[field]) continue;
    const message = `access and assignment of disk ${assignment.diskKey} differ in ${field}: ${access[field]}, ${assignment[field]}`;
    throw new TidemarkError('BAD_REQUEST', message, { field });
  }
}
