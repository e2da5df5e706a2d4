/** Retention of what a session has backed up: only after a newer restore point is sealed, and never a reason to fail. */
import { lineageOf } from '../schema/domain/ids.ts';
import type { LineagePolicy } from '../schema/domain/maintenance-sessions.ts';
import { controlQueue, repositoryCtlQueue } from '../schema/domain/queues.ts';
import type { Finding } from '../schema/domain/states.ts';
import { viewOf } from './failures.ts';
import { doubtsToTell, leftToRetain } from './retention-pages.ts';
import { say } from './say.ts';
import type { SessionRun } from './session-run.ts';

/** In one answer of the repository. */
const LINEAGES_AT_ONCE = 100;

/** What a person must see to makes the session a Warning. */
export async function retainAfter(run: SessionRun, lineages: readonly LineagePolicy[]): Promise<void> {
  const { sessionId } = run.input;
  const findings: Finding[] = [];
  try {
    for (let at = 0; at < lineages.length; at += LINEAGES_AT_ONCE)
      await retain(run, lineages.slice(at, at + LINEAGES_AT_ONCE), findings);
  } catch (error) {
    const { code, message } = viewOf(error);
    findings.push({
      level: 'info',
      code,
      message: `retention is left to the maintenance of the repository: ${message}`,
    });
  }
  if (findings.length === 0) return;
  run.warnings.push(...findings);
  await say('recordFindings', { queue: controlQueue })({ sessionId, about: 'retention', findings });
}

async function retain(run: SessionRun, lineages: LineagePolicy[], findings: Finding[]): Promise<void> {
  const { sessionId } = run.input;
  const queue = repositoryCtlQueue(run.job.repositoryId);
  for (let left = lineages; left.length > 0;) {
    const retained = await say('applyRetention', { queue, summary: 'retention' })({ lineages: left, dryRun: false });
    if (retained.some(({ decisions, trashed = [] }) => decisions.length + trashed.length > 0))
      await say('recordRetention', { queue: controlQueue })({ sessionId, lineages: retained });
    findings.push(...doubtsToTell(retained, findings));
    left = leftToRetain(left, retained);
  }
}

/** Those of which this session has sealed a restore point. */
export function lineagesToRetain({ job, tally: { vms, results } }: SessionRun): LineagePolicy[] {
  const policy = job.retention;
  if (!policy) return [];
  return vms.flatMap(({ vm, name }) => {
    if (!results.get(vm.vmId)?.restorePointId) return [];
    const lineage = lineageOf(job.jobId, vm.vmId, job.repositoryId);
    return [{ lineage, jobId: job.jobId, vmId: vm.vmId, vmName: name, policy, vmGoneSince: null }];
  });
}
