/** Sessions with a row per VM and per disk: what the command line shows. Every write may be repeated. */
import { sql } from 'kysely';
import { TidemarkError } from '../domain/errors.ts';
import type { AuditResult, Conservation } from '../domain/restore-point.ts';
import type { StageTimes } from '../domain/stages.ts';
import type { SessionResult, SessionState } from '../domain/states.ts';
import type { CatalogDatabase } from './connection.ts';
import { fromJson, isoOrNull, prefixPattern, toJson } from './json.ts';
import { underSchedulerLock } from './leases.ts';

export type SessionKind = 'backup' | 'restore' | 'maintenance';
export type NewSession = {
  sessionId: string;
  kind: SessionKind;
  jobId: string | null;
  /** Of a maintenance; absent: none. */
  repositoryId?: string;
  workflowId: string;
  /** `import`: known from the manifests of its restore points alone. */
  startedBy: 'schedule' | 'manual' | 'import';
  /** ISO 8601, UTC. */
  nominalTime: string;
  startedAt: string;
  spec?: unknown;
};
export type SessionError = { code: string; message: string; hint: string };
export type SessionChange = {
  state?: SessionState;
  result?: SessionResult;
  endedAt?: string | null;
  error?: SessionError | null;
};
export type Session = {
  sessionId: string;
  kind: string;
  jobId: string | null;
  repositoryId: string | null;
  workflowId: string;
  startedBy: string;
  state: SessionState;
  result: SessionResult;
  nominalTime: string;
  startedAt: string;
  endedAt: string | null;
  error: SessionError | null;
  spec: unknown;
};

/** What only one session at a time may work on. */
export type ExclusiveOn = { jobId: string } | { repositoryId: string };

/**
 * Makes the session unless another one of the same job (or maintenance of the same repository) is not Stopped: then those
 * are returned, and nothing was made. Two starts see each other (scheduler lock).
 */
export async function beginSession(db: CatalogDatabase, session: NewSession & ExclusiveOn): Promise<Session[]> {
  const { jobId, repositoryId } = session;
  const same = jobId === null ? { repositoryId: repositoryId! } : { jobId };
  return underSchedulerLock(db, async (transaction) => {
    const open = await listSessions(transaction, { ...same, open: true, limit: 1000 });
    const others = open.filter(({ sessionId }) => sessionId !== session.sessionId);
    if (others.length === 0) await createSession(transaction, session);
    return others;
  });
}

/**
 * Closes a session that nobody works on any more: it and its VMs in work as Failed with the error, VMs it never came to
 * as NotProcessed. One that is Stopped stays as it is.
 */
export async function closeAbandonedSession(
  db: CatalogDatabase,
  sessionId: string,
  end: { endedAt: string; error: SessionError },
): Promise<void> {
  await db.transaction().execute(async (transaction) => {
    const session = await transaction
      .selectFrom('sessions')
      .select('state')
      .where('session_id', '=', sessionId)
      .forUpdate()
      .executeTakeFirst();
    if (!session || session.state === 'Stopped') return;
    const { endedAt, error } = end;
    await updateSession(transaction, sessionId, { state: 'Stopped', result: 'Failed', endedAt, error });
    const left = await transaction
      .selectFrom('session_vms')
      .select(['vm_id', 'started_at'])
      .where('session_id', '=', sessionId)
      .where('result', '=', 'None')
      .execute();
    for (const { vm_id, started_at } of left) {
      const change: SessionVmChange =
        started_at === null ? { result: 'NotProcessed' } : { result: 'Failed', endedAt, error, waitsFor: null };
      await updateSessionVm(transaction, sessionId, vm_id, change);
    }
  });
}

/** Starting, result None; a session that is there already stays as it is. */
export async function createSession(db: CatalogDatabase, session: NewSession): Promise<void> {
  await db
    .insertInto('sessions')
    .values({
      session_id: session.sessionId,
      kind: session.kind,
      job_id: session.jobId,
      repository_id: session.repositoryId ?? null,
      workflow_id: session.workflowId,
      started_by: session.startedBy,
      state: 'Starting',
      result: 'None',
      nominal_time: new Date(session.nominalTime),
      started_at: new Date(session.startedAt),
      spec: session.spec === undefined ? null : toJson(session.spec),
    })
    .onDuplicateKeyUpdate({ session_id: sql`session_id` })
    .execute();
}

/** Columns of what is given; `undefined` leaves a column alone, `null` clears it. */
function present(columns: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(columns).filter(([, value]) => value !== undefined));
}
const dateOf = (text: string | null | undefined): Date | null | undefined =>
  text ? new Date(text) : (text as null | undefined);
const errorColumns = (error: SessionError | null | undefined): Record<string, unknown> =>
  error === undefined
    ? {}
    : { error_code: error?.code ?? null, error_message: error?.message ?? null, error_hint: error?.hint ?? null };
const errorOf = (row: { error_code: string | null; error_message: string | null; error_hint: string | null }) =>
  row.error_code === null
    ? null
    : { code: row.error_code, message: row.error_message ?? '', hint: row.error_hint ?? '' };

/** A stopped session stays stopped: a state that arrives late changes nothing. */
export async function updateSession(db: CatalogDatabase, sessionId: string, change: SessionChange): Promise<void> {
  const set = present({
    state: change.state,
    result: change.result,
    ended_at: dateOf(change.endedAt),
    ...errorColumns(change.error),
  });
  if (Object.keys(set).length === 0) return;
  const mayBeLate = change.state !== undefined && change.result === undefined;
  const update = db.updateTable('sessions').set(set).where('session_id', '=', sessionId);
  await (mayBeLate ? update.where('state', '!=', 'Stopped') : update).execute();
}

/** From Starting to Working; a session that is further, or being stopped, stays as it is. */
export async function beginSessionWork(db: CatalogDatabase, sessionId: string): Promise<void> {
  await db
    .updateTable('sessions')
    .set({ state: 'Working' })
    .where('session_id', '=', sessionId)
    .where('state', '=', 'Starting')
    .execute();
}

export type SessionVm = {
  vmId: string;
  name: string;
  hostId: string;
  /** Order in the job, from 0. */
  position: number;
  attempt: number;
  runKey: string | null;
  workflowId: string | null;
  step: string;
  result: SessionResult | 'NotProcessed';
  waitsFor: string | null;
  error: SessionError | null;
  restorePointId: string | null;
  consistency: string | null;
  startedAt: string | null;
  endedAt: string | null;
};
export type SessionVmChange = Partial<Omit<SessionVm, 'vmId'>>;

/** One row per VM, step waiting, result None; rows that are there stay. */
export async function planSessionVms(
  db: CatalogDatabase,
  sessionId: string,
  vms: readonly { vmId: string; name: string; hostId: string }[],
): Promise<void> {
  if (vms.length === 0) return;
  await db
    .insertInto('session_vms')
    .values(
      vms.map((vm, position) => ({
        session_id: sessionId,
        vm_id: vm.vmId,
        name: vm.name,
        host_id: vm.hostId,
        position,
        attempt: 0,
        step: 'waiting',
        result: 'None',
      })),
    )
    .onDuplicateKeyUpdate({ session_id: sql`session_id` })
    .execute();
}

export async function updateSessionVm(
  db: CatalogDatabase,
  sessionId: string,
  vmId: string,
  change: SessionVmChange,
): Promise<void> {
  const set = present({
    name: change.name,
    host_id: change.hostId,
    position: change.position,
    attempt: change.attempt,
    run_key: change.runKey,
    workflow_id: change.workflowId,
    step: change.step,
    result: change.result,
    waits_for: change.waitsFor,
    restore_point_id: change.restorePointId,
    consistency: change.consistency,
    started_at: dateOf(change.startedAt),
    ended_at: dateOf(change.endedAt),
    ...errorColumns(change.error),
  });
  if (Object.keys(set).length === 0) return;
  const done = await db
    .updateTable('session_vms')
    .set(set)
    .where('session_id', '=', sessionId)
    .where('vm_id', '=', vmId)
    .executeTakeFirst();
  if (done.numUpdatedRows === 0n)
    throw new TidemarkError('NOT_FOUND', `session ${sessionId} has no VM ${vmId}`, { sessionId, vmId });
}

export type SessionDisk = {
  diskKey: string;
  mode: string | null;
  reason: { code: string; message: string } | null;
  proxyId: string | null;
  sizeBytes: number;
  doneBytes: number;
  readBytes: number;
  sentBytes: number;
  storedBytes: number;
  rateBytesPerSecond: number | null;
  waitsFor: string | null;
  conservation: Conservation | null;
  audit: AuditResult | null;
  /** Where the time of its transfers went; null: not known. */
  stages: StageTimes | null;
  startedAt: string | null;
  endedAt: string | null;
};
export type SessionDiskChange = Partial<Omit<SessionDisk, 'diskKey'>>;

/** Makes the disk's row when it is missing. */
export async function updateSessionDisk(
  db: CatalogDatabase,
  sessionId: string,
  vmId: string,
  diskKey: string,
  change: SessionDiskChange,
): Promise<void> {
  const set = present({
    mode: change.mode,
    reason_code: change.reason === undefined ? undefined : (change.reason?.code ?? null),
    reason_message: change.reason === undefined ? undefined : (change.reason?.message ?? null),
    proxy_id: change.proxyId,
    size_bytes: change.sizeBytes,
    done_bytes: change.doneBytes,
    read_bytes: change.readBytes,
    sent_bytes: change.sentBytes,
    stored_bytes: change.storedBytes,
    rate_bytes_per_second: change.rateBytesPerSecond,
    waits_for: change.waitsFor,
    conservation: change.conservation ? toJson(change.conservation) : change.conservation,
    audit: change.audit ? toJson(change.audit) : change.audit,
    stages: change.stages ? toJson(change.stages) : change.stages,
    started_at: dateOf(change.startedAt),
    ended_at: dateOf(change.endedAt),
  });
  await db
    .insertInto('session_disks')
    .values({ session_id: sessionId, vm_id: vmId, disk_key: diskKey, ...set })
    .onDuplicateKeyUpdate(Object.keys(set).length > 0 ? set : { disk_key: diskKey })
    .execute();
}

export type SessionFilter = {
  jobId?: string;
  /** Maintenance of this repository. */
  repositoryId?: string;
  kind?: SessionKind;
  open?: boolean;
  limit?: number;
  /** First characters of the session's id. */
  idPrefix?: string;
};

/** Newest first. `open`: only those not Stopped. */
export async function listSessions(db: CatalogDatabase, filter: SessionFilter = {}): Promise<Session[]> {
  let query = db
    .selectFrom('sessions')
    .selectAll()
    .orderBy('started_at', 'desc')
    .limit(filter.limit ?? 100);
  if (filter.jobId !== undefined) query = query.where('job_id', '=', filter.jobId);
  if (filter.repositoryId !== undefined) query = query.where('repository_id', '=', filter.repositoryId);
  if (filter.kind !== undefined) query = query.where('kind', '=', filter.kind);
  if (filter.open) query = query.where('state', '!=', 'Stopped');
  if (filter.idPrefix !== undefined) query = query.where('session_id', 'like', prefixPattern(filter.idPrefix));
  return (await query.execute()).map(sessionOf);
}

type SessionRow = {
  session_id: string;
  kind: string;
  job_id: string | null;
  repository_id: string | null;
  workflow_id: string;
  started_by: string;
  state: string;
  result: string;
  nominal_time: Date;
  started_at: Date;
  ended_at: Date | null;
  error_code: string | null;
  error_message: string | null;
  error_hint: string | null;
  spec: string | null;
};
const sessionOf = (row: SessionRow): Session => ({
  sessionId: row.session_id,
  kind: row.kind,
  jobId: row.job_id,
  repositoryId: row.repository_id,
  workflowId: row.workflow_id,
  startedBy: row.started_by,
  state: row.state as SessionState,
  result: row.result as SessionResult,
  nominalTime: row.nominal_time.toISOString(),
  startedAt: row.started_at.toISOString(),
  endedAt: isoOrNull(row.ended_at),
  error: errorOf(row),
  spec: row.spec === null ? null : fromJson(row.spec),
});

export type SessionWithRows = Session & { vms: (SessionVm & { disks: SessionDisk[] })[] };

/** A session with its VMs and disks, or null. */
export async function loadSession(db: CatalogDatabase, sessionId: string): Promise<SessionWithRows | null> {
  const row = await db.selectFrom('sessions').selectAll().where('session_id', '=', sessionId).executeTakeFirst();
  if (!row) return null;
  const vms = await db
    .selectFrom('session_vms')
    .selectAll()
    .where('session_id', '=', sessionId)
    .orderBy('position')
    .execute();
  const disks = await db
    .selectFrom('session_disks')
    .selectAll()
    .where('session_id', '=', sessionId)
    .orderBy('disk_key')
    .execute();
  return {
    ...sessionOf(row),
    vms: vms.map((vm) => ({
      vmId: vm.vm_id,
      name: vm.name,
      hostId: vm.host_id,
      position: vm.position,
      attempt: vm.attempt,
      runKey: vm.run_key,
      workflowId: vm.workflow_id,
      step: vm.step,
      result: vm.result as SessionVm['result'],
      waitsFor: vm.waits_for,
      error: errorOf(vm),
      restorePointId: vm.restore_point_id,
      consistency: vm.consistency,
      startedAt: isoOrNull(vm.started_at),
      endedAt: isoOrNull(vm.ended_at),
      disks: disks.filter((disk) => disk.vm_id === vm.vm_id).map(diskOf),
    })),
  };
}

function diskOf(row: {
  disk_key: string;
  mode: string | null;
  reason_code: string | null;
  reason_message: string | null;
  proxy_id: string | null;
  size_bytes: number;
  done_bytes: number;
  read_bytes: number;
  sent_bytes: number;
  stored_bytes: number;
  rate_bytes_per_second: number | null;
  waits_for: string | null;
  conservation: string | null;
  audit: string | null;
  stages: string | null;
  started_at: Date | null;
  ended_at: Date | null;
}): SessionDisk {
  return {
    diskKey: row.disk_key,
    mode: row.mode,
    reason: row.reason_code === null ? null : { code: row.reason_code, message: row.reason_message ?? '' },
    proxyId: row.proxy_id,
    sizeBytes: row.size_bytes,
    doneBytes: row.done_bytes,
    readBytes: row.read_bytes,
    sentBytes: row.sent_bytes,
    storedBytes: row.stored_bytes,
    rateBytesPerSecond: row.rate_bytes_per_second,
    waitsFor: row.waits_for,
    conservation: row.conservation === null ? null : fromJson(row.conservation),
    audit: row.audit === null ? null : fromJson(row.audit),
    stages: row.stages === null ? null : fromJson(row.stages),
    startedAt: isoOrNull(row.started_at),
    endedAt: isoOrNull(row.ended_at),
  };
}
