/** What sessions have left on a host, for the janitor (invariant 6). Another site's is never touched. */
import type { HypervisorProvider } from '../../engines/hypervisors/provider.ts';
import { messageOf } from '../../schema/domain/errors.ts';
import type { Artifact } from '../../schema/domain/hypervisor.ts';
import type { RunKey, SiteId } from '../../schema/domain/ids.ts';
import type { ArtifactRuns, RemovedArtifacts } from '../../schema/domain/maintenance-sessions.ts';

async function ownArtifacts(provider: HypervisorProvider, site: SiteId): Promise<Artifact[]> {
  const artifacts: Artifact[] = [];
  for await (const artifact of provider.listArtifacts()) if (artifact.site === site) artifacts.push(artifact);
  return artifacts;
}

export async function listArtifactRuns(provider: HypervisorProvider, site: SiteId): Promise<ArtifactRuns> {
  const artifacts = await ownArtifacts(provider, site);
  const runsOf = (kind: Artifact['kind']): RunKey[] => [
    ...new Set(artifacts.filter((artifact) => artifact.kind === kind).map(({ run }) => run)),
  ];
  return { temporary: runsOf('temporary'), referencePoints: runsOf('reference-point') };
}

export async function removeArtifacts(
  provider: HypervisorProvider,
  site: SiteId,
  { temporary, referencePoints }: ArtifactRuns,
): Promise<RemovedArtifacts> {
  const wanted = { temporary: new Set(temporary), 'reference-point': new Set(referencePoints) };
  const outcome: RemovedArtifacts = { removed: [], failed: [] };
  const artifacts = await ownArtifacts(provider, site);
  // What is read through a reference point holds it.
  artifacts.sort((a, b) => Number(a.kind === 'reference-point') - Number(b.kind === 'reference-point'));
  for (const artifact of artifacts) {
    const { kind, run, what } = artifact;
    if (!wanted[kind].has(run)) continue;
    try {
      await provider.removeArtifact(artifact);
      outcome.removed.push({ run, what });
    } catch (error) {
      outcome.failed.push({ run, what, why: messageOf(error) });
    }
  }
  return outcome;
}
