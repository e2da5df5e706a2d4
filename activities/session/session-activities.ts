/** The session's rows in the catalog: what people and the command line see of it, and what the next session reads. */
import { recordEvents, type SessionEvent } from '../../schema/catalog/events.ts';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { loadJob } from '../../schema/catalog/jobs.ts';
import { loadInventory, storeInventory } from '../../schema/catalog/resources.ts';
import { recordSpace } from '../../schema/catalog/repository-figures.ts';
import { listStoredBytes, recordRestorePoint } from '../../schema/catalog/restore-points.ts';
import {
  beginSessionWork,
  loadSession,
  planSessionVms,
  updateSession,
  updateSessionVm,
} from '../../schema/catalog/sessions.ts';
import { recordRunOwner } from '../../schema/catalog/run-owners.ts';
import { loadSite } from '../../schema/catalog/site.ts';
import type { JobConfig } from '../../schema/domain/configuration.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { vmId, type SessionId, type VmId } from '../../schema/domain/ids.ts';
import type { BackupSessionInput } from '../../schema/domain/sessions.ts';
import type { Finding } from '../../schema/domain/states.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import { withCatalogErrors } from '../catalog-errors.ts';
import type { ControlActivities } from '../contract.ts';
import { translating } from '../failures.ts';
import type { WorkflowView } from '../temporal-views.ts';
import { beginAlone } from './begin-alone.ts';
import { planVms } from './plan-vms.ts';
import { repositoryAlarms } from './repository-alarms.ts';
import { recordVmRows } from './record-vm.ts';

export type SessionDependencies = { db: CatalogDatabase; workflows: WorkflowView; clock: Clock };
type SessionActivities = Pick<
  ControlActivities,
  'startSession' | 'planSession' | 'updateSession' | 'startVm' | 'recordVm' | 'recordUnprocessed' | 'recordRestorePoint'
>;
type Of<Verb extends keyof SessionActivities> = Parameters<SessionActivities[Verb]>[0];

/** What a backup session's row keeps of how it was started: a job changed meanwhile does not change it. */
export type BackupSessionSpec = { input: BackupSessionInput; job: JobConfig };

export function createSessionActivities(dependencies: SessionDependencies): SessionActivities {
  const { db, clock } = dependencies;
  const now = (): string => new Date(clock.now()).toISOString();
  return translating(
    withCatalogErrors({
      startSession: (of) => startSession(of, dependencies, now()),
      planSession: (of) => planSession(of, db, now()),
      updateSession: (of) => changeSession(of, db),
      startVm: async ({ sessionId, vm, attempt, run, workflowId, startedAt }) => {
        const begun = { hostId: vm.hostId, attempt, runKey: run, workflowId, startedAt };
        const nothingYet = { step: 'waiting', result: 'None', error: null, waitsFor: null, endedAt: null } as const;
        await recordRunOwner(db, { run, workflowId, sessionId, vmId: vm.vmId }, new Date(startedAt));
        await updateSessionVm(db, sessionId, vm.vmId, { ...begun, ...nothingYet });
      },
      recordVm: (of) => recordVmRows(db, of),
      recordUnprocessed: async ({ sessionId, vms }) => {
        for (const vm of vms) await updateSessionVm(db, sessionId, vm.vmId, { result: 'NotProcessed', waitsFor: null });
      },
      recordRestorePoint: async ({ space, ...sealed }) => {
        await recordRestorePoint(db, sealed);
        if (space) await recordSpace(db, sealed.manifest.repository, space);
      },
    } satisfies SessionActivities),
  );
}

async function startSession(
  { input, workflowId, startedAt }: Of<'startSession'>,
  { db, workflows }: SessionDependencies,
  endedAt: string,
): ReturnType<SessionActivities['startSession']> {
  const { sessionId, jobId, startedBy, nominalTime } = input;
  const job = await loadJob(db, jobId);
  const site = await loadSite(db);
  if (!site) throw new TidemarkError('JOB_NOT_FOUND', `no site was applied, so there is no job ${jobId}`, { jobId });
  const spec: BackupSessionSpec = { input, job };
  const times = { nominalTime: nominalTime ?? startedAt, startedAt };
  const session = { sessionId, kind: 'backup', jobId, workflowId, startedBy, ...times, spec } as const;
  await beginAlone(session, { db, workflows, endedAt });
  return { site: site.site, job };
}

async function planSession(
  { sessionId, inventories }: Of<'planSession'>,
  db: CatalogDatabase,
  at: string,
): ReturnType<SessionActivities['planSession']> {
  const session = await loadSession(db, sessionId);
  if (!session) throw new TidemarkError('NOT_FOUND', `there is no session ${sessionId}`, { sessionId });
  const { input, job } = session.spec as BackupSessionSpec;
  for (const { vms } of inventories) await storeInventory(db, vms, new Date(at));
  const only = input.retryOf === null ? null : await failedVms(db, input.retryOf);
  const { jobId, repositoryId, vms } = job;
  const stored = await listStoredBytes(db, { jobId, repositoryId, limit: vms.length * RESTORE_POINTS_PER_VM });
  const known = planVms(job, { inventories, remembered: await loadInventory(db), only, stored });
  const plan = { ...known, warnings: [...known.warnings, ...(await repositoryAlarms(db, repositoryId))] };
  await planSessionVms(
    db,
    sessionId,
    plan.vms.map(({ vm, name }) => ({ ...vm, name })),
  );
  await recordEvents(db, eventsOf(sessionId, 'plan', plan.warnings, at));
  await beginSessionWork(db, sessionId);
  return plan;
}

/** For an estimate of the next one. */
const RESTORE_POINTS_PER_VM = 10;

async function failedVms(db: CatalogDatabase, sessionId: SessionId): Promise<Set<VmId>> {
  const before = await loadSession(db, sessionId);
  if (!before) throw new TidemarkError('NOT_FOUND', `there is no session ${sessionId} to try again`, { sessionId });
  const failed = before.vms.filter(({ result }) => result === 'Failed' || result === 'NotProcessed');
  if (failed.length > 0) return new Set(failed.map((vm) => vmId(vm.vmId)));
  throw new TidemarkError('BAD_REQUEST', `no VM of session ${sessionId} has failed`, { sessionId });
}

async function changeSession(of: Of<'updateSession'>, db: CatalogDatabase): Promise<void> {
  const { sessionId, ...change } = of;
  await updateSession(db, sessionId, change);
  if (change.state !== 'Stopped') return;
  // A restore's one VM ends with it; a backup's VMs have recorded themselves.
  const session = await loadSession(db, sessionId);
  if (session?.kind !== 'restore') return;
  for (const vm of session.vms)
    await updateSessionVm(db, sessionId, vm.vmId, {
      step: 'done',
      result: session.result,
      error: session.error,
      endedAt: session.endedAt,
      waitsFor: null,
    });
}

/** `prefix`: at most 50 characters; makes a repeated record the same event. */
export const eventsOf = (sessionId: string, prefix: string, findings: readonly Finding[], at: string): SessionEvent[] =>
  findings.map((finding, index) => ({ sessionId, eventKey: `${prefix}-${index}`, at, ...finding }));
