/**
 * Checkpoints and reference points of one host's VMs: thin over its provider. None is interrupted by a cancellation:
 * half a checkpoint is worse than one that the undo list takes back.
 */
import type { Freezer, HypervisorProvider } from '../../engines/hypervisors/provider.ts';
import type { SiteId } from '../../schema/domain/ids.ts';
import { beating } from '../beating.ts';
import type { HostActivities } from '../contract.ts';
import { translating } from '../failures.ts';
import { listArtifactRuns, removeArtifacts } from './artifacts.ts';

export type CheckpointDependencies = { site: SiteId; provider: HypervisorProvider; freezer: Freezer };
type CheckpointActivities = Omit<HostActivities, 'listInventory' | 'inspectVm'>;

export function createCheckpointActivities({ site, provider, freezer }: CheckpointDependencies): CheckpointActivities {
  return translating({
    createCheckpoint: (spec) => beating(() => provider.createCheckpoint(spec, freezer)),
    openAccess: ({ run, diskKey, reader }) => beating(() => provider.openAccess(run, diskKey, reader)),
    releaseCheckpoint: ({ run }) =>
      beating(async () => {
        // What could not be closed in order ends with the checkpoint, whose own verdict counts.
        await provider.closeAccess(run).catch(() => undefined);
        return await provider.releaseCheckpoint(run);
      }),
    commitReferencePoint: ({ lineage, keep }) => beating(() => provider.commitReferencePoint(lineage, keep)),
    discardReferencePoint: ({ run }) => beating(() => provider.discardReferencePoint(run)),
    listArtifactRuns: () => beating(() => listArtifactRuns(provider, site)),
    removeArtifacts: (of) => beating(() => removeArtifacts(provider, site, of)),
  } satisfies CheckpointActivities);
}
