/**
 * Leases and the requests for them. All verbs are idempotent by workflow id and request number. Grants are made only in
 * `grantPass`, one at a time over all processes: every pass holds the lock of the one `scheduler` row.
 */
import { sql } from 'kysely';
import type { Transaction } from 'kysely';
import { TidemarkError } from '../domain/errors.ts';
import type { Reason } from '../domain/hypervisor.ts';
import type { RunKey } from '../domain/ids.ts';
import type {
  DecideResources,
  HeldLease,
  ResourceDecision,
  ResourceKind,
  ResourceRequest,
  WaitReason,
} from '../domain/scheduling.ts';
import type { CatalogDatabase } from './connection.ts';
import { fromJson, toJson } from './json.ts';
import { loadResourceStates } from './resources.ts';
import type { CatalogTables } from './tables.ts';

/** Puts a request in line; when it is there already (waiting or granted), nothing changes. */
export async function enqueueRequest(db: CatalogDatabase, request: ResourceRequest): Promise<void> {
  await db
    .insertInto('resource_requests')
    .values({
      workflow_id: request.workflowId,
      request_number: request.requestNumber,
      run_key: request.runKey,
      type_order: request.order,
      manual: request.manual ? 1 : 0,
      arrived_at: new Date(request.arrivedAt),
      wants: toJson(request.wants),
      state: 'waiting',
    })
    .onDuplicateKeyUpdate({ workflow_id: sql`workflow_id` })
    .execute();
}

export type TakenGrant =
  | { state: 'granted'; leases: HeldLease[]; reason: Reason }
  | { state: 'waiting'; position: number | null; reason: Reason }
  | { state: 'unknown' };

/** What became of a request. `unknown`: never enqueued, or its leases were released. Changes nothing. */
export async function takeGrant(db: CatalogDatabase, workflowId: string, requestNumber = 0): Promise<TakenGrant> {
  const row = await db
    .selectFrom('resource_requests')
    .selectAll()
    .where('workflow_id', '=', workflowId)
    .where('request_number', '=', requestNumber)
    .executeTakeFirst();
  if (!row) return { state: 'unknown' };
  const reason = {
    code: row.reason_code ?? 'new',
    message: row.reason_message ?? 'waits for the next grant pass',
  };
  if (row.state === 'waiting') return { state: 'waiting', position: row.position, reason };
  const held = await listLeases(db, workflowId);
  return { state: 'granted', leases: held.filter((lease) => lease.requestNumber === requestNumber), reason };
}

/** Leases of one workflow, or of all, oldest first. */
export async function listLeases(db: CatalogDatabase, workflowId?: string): Promise<HeldLease[]> {
  let query = db.selectFrom('leases').selectAll().orderBy('lease_id');
  if (workflowId !== undefined) query = query.where('workflow_id', '=', workflowId);
  const rows = await query.execute();
  return rows.map((row) => ({
    leaseId: row.lease_id,
    kind: row.kind as ResourceKind,
    id: row.resource_id,
    pair: row.pair,
    requestNumber: row.request_number,
    workflowId: row.workflow_id,
    runKey: row.run_key as RunKey,
    grantedAt: row.granted_at.toISOString(),
  }));
}

/** The workflow's leases; LEASE_LOST when it holds none (released by somebody who took it for dead), or not all of `leaseIds`. */
export async function confirmLeases(
  db: CatalogDatabase,
  workflowId: string,
  leaseIds: readonly number[] = [],
): Promise<HeldLease[]> {
  const held = await listLeases(db, workflowId);
  const ids = new Set(held.map((lease) => lease.leaseId));
  const missing = leaseIds.filter((id) => !ids.has(id));
  if (held.length === 0 || missing.length > 0)
    throw new TidemarkError('LEASE_LOST', `workflow ${workflowId} no longer holds its leases`, { workflowId, missing });
  return held;
}

/**
 * Gives back leases by id, or (without `leaseIds`) all of the workflow with its requests, waiting ones too.
 * Returns how many leases were given back.
 */
export async function releaseLeases(
  db: CatalogDatabase,
  workflowId: string,
  leaseIds?: readonly number[],
): Promise<number> {
  if (leaseIds !== undefined) {
    if (leaseIds.length === 0) return 0;
    const some = await db
      .deleteFrom('leases')
      .where('workflow_id', '=', workflowId)
      .where('lease_id', 'in', leaseIds)
      .executeTakeFirst();
    return Number(some.numDeletedRows);
  }
  // Under the scheduler's lock: a pass that has read the request must not grant it after it is gone.
  return underSchedulerLock(db, async (transaction) => {
    await transaction.deleteFrom('resource_requests').where('workflow_id', '=', workflowId).execute();
    const all = await transaction.deleteFrom('leases').where('workflow_id', '=', workflowId).executeTakeFirst();
    return Number(all.numDeletedRows);
  });
}

/** Takes one request out of the line, with what was granted to it. Not there: success. Returns how many leases went. */
export async function withdrawRequest(db: CatalogDatabase, workflowId: string, requestNumber: number): Promise<number> {
  return underSchedulerLock(db, async (transaction) => {
    let freed = 0n;
    for (const table of ['resource_requests', 'leases'] as const) {
      const gone = await transaction
        .deleteFrom(table)
        .where('workflow_id', '=', workflowId)
        .where('request_number', '=', requestNumber)
        .executeTakeFirst();
      freed = gone.numDeletedRows;
    }
    return Number(freed);
  });
}

/** Workflows that hold leases or wait for some. */
export async function listLeaseOwners(db: CatalogDatabase): Promise<string[]> {
  const rows = await db
    .selectFrom('leases')
    .select('workflow_id')
    .union(db.selectFrom('resource_requests').select('workflow_id'))
    .execute();
  return rows.map((row) => row.workflow_id);
}

/** Waiting and granted requests, by arrival. */
export async function listRequests(
  db: CatalogDatabase,
): Promise<(ResourceRequest & { state: 'waiting' | 'granted'; position: number | null; reason: Reason | null })[]> {
  const rows = await db.selectFrom('resource_requests').selectAll().orderBy('arrived_at').execute();
  return rows.map((row) => ({
    ...requestOf(row),
    state: row.state,
    position: row.position,
    reason: row.reason_code === null ? null : { code: row.reason_code, message: row.reason_message ?? '' },
  }));
}

/**
 * One pass: loads the picture, lets `decide` (pure) choose, stores leases and waiting reasons; all in one transaction.
 * Passes of several processes follow one another. Returns what was decided; `nowMs` is milliseconds since the epoch.
 */
export async function grantPass(
  db: CatalogDatabase,
  decide: DecideResources,
  nowMs: number,
): Promise<ResourceDecision> {
  return underSchedulerLock(db, async (transaction) => {
    const rows = await transaction.selectFrom('resource_requests').selectAll().where('state', '=', 'waiting').execute();
    if (rows.length === 0) return { grants: [], reasons: [] };
    const resources = await loadResourceStates(transaction);
    const decision = decide({ nowMs, resources, requests: rows.map(requestOf) });
    const runs = new Map(rows.map((row) => [`${row.request_number} ${row.workflow_id}`, row.run_key]));
    await storeGrants(transaction, decision, runs, new Date(nowMs));
    const before = new Map(rows.map((row) => [`${row.request_number} ${row.workflow_id}`, row]));
    for (const wait of decision.reasons) {
      const row = before.get(`${wait.requestNumber} ${wait.workflowId}`);
      if (row?.position !== wait.position || row.reason_message !== wait.reason.message)
        await storeReason(transaction, wait);
    }
    return decision;
  });
}

type RequestRow = {
  workflow_id: string;
  request_number: number;
  run_key: string;
  type_order: number;
  manual: number;
  arrived_at: Date;
  wants: string;
};
const requestOf = (row: RequestRow): ResourceRequest => ({
  workflowId: row.workflow_id,
  requestNumber: row.request_number,
  runKey: row.run_key as RunKey,
  order: row.type_order,
  manual: row.manual !== 0,
  arrivedAt: row.arrived_at.getTime(),
  wants: fromJson(row.wants),
});

async function storeGrants(
  db: Transaction<CatalogTables>,
  decision: ResourceDecision,
  runs: Map<string, string>,
  at: Date,
): Promise<void> {
  for (const grant of decision.grants) {
    const key = { workflow_id: grant.workflowId, request_number: grant.requestNumber };
    const run_key = runs.get(`${grant.requestNumber} ${grant.workflowId}`);
    if (run_key === undefined)
      throw new TidemarkError('BUG', `scheduler granted ${grant.workflowId}, which does not wait`);
    const rows = grant.leases.map((lease) => ({
      ...key,
      kind: lease.kind,
      resource_id: lease.id,
      exclusive_key: lease.kind === 'vm' ? `vm:${lease.id}` : null,
      run_key,
      units: 1,
      pair: lease.pair,
      granted_at: at,
    }));
    if (rows.length > 0) await db.insertInto('leases').values(rows).execute();
    await db
      .updateTable('resource_requests')
      .set({
        state: 'granted',
        position: null,
        granted_at: at,
        reason_code: grant.reason.code,
        reason_message: grant.reason.message,
      })
      .where('workflow_id', '=', key.workflow_id)
      .where('request_number', '=', key.request_number)
      .execute();
  }
}

async function storeReason(db: Transaction<CatalogTables>, wait: WaitReason): Promise<void> {
  await db
    .updateTable('resource_requests')
    .set({ position: wait.position, reason_code: wait.reason.code, reason_message: wait.reason.message })
    .where('workflow_id', '=', wait.workflowId)
    .where('request_number', '=', wait.requestNumber)
    .execute();
}

/** Runs `work` alone among all schedulers of this catalog. Read committed: it sees what earlier passes committed. */
export async function underSchedulerLock<T>(
  db: CatalogDatabase,
  work: (transaction: Transaction<CatalogTables>) => Promise<T>,
): Promise<T> {
  return db
    .transaction()
    .setIsolationLevel('read committed')
    .execute(async (transaction) => {
      const row = await transaction
        .selectFrom('scheduler')
        .select('passes')
        .where('scheduler_id', '=', 1)
        .forUpdate()
        .executeTakeFirst();
      if (!row) throw new TidemarkError('DATABASE_ERROR', 'the catalog has no scheduler row: it was not migrated');
      return work(transaction);
    });
}
