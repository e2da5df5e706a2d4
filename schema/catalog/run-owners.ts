/** Whose run keys are: for what was made outside and is named by them. */
import { sql } from 'kysely';
import type { RunKey } from '../domain/ids.ts';
import type { CatalogDatabase } from './connection.ts';

export type RunOwner = { run: string; workflowId: string; sessionId: string; vmId: string };

/** Said again: no change. */
export async function recordRunOwner(db: CatalogDatabase, owner: RunOwner, at: Date): Promise<void> {
  await db
    .insertInto('run_owners')
    .values({
      run_key: owner.run,
      workflow_id: owner.workflowId,
      session_id: owner.sessionId,
      vm_id: owner.vmId,
      started_at: at,
    })
    .onDuplicateKeyUpdate({ run_key: sql`run_key` })
    .execute();
}

/** `hasEnded`: its session says so. */
export type KnownOwner = RunOwner & { hasEnded: boolean };

/** Those that are known. */
export async function loadRunOwners(db: CatalogDatabase, runs: readonly RunKey[]): Promise<KnownOwner[]> {
  if (runs.length === 0) return [];
  const rows = await db
    .selectFrom('run_owners')
    .leftJoin('sessions', 'sessions.session_id', 'run_owners.session_id')
    .select(['run_owners.run_key', 'run_owners.workflow_id', 'run_owners.session_id', 'run_owners.vm_id'])
    .select('sessions.state')
    .where('run_owners.run_key', 'in', runs)
    .execute();
  return rows.map((row) => ({
    run: row.run_key,
    workflowId: row.workflow_id,
    sessionId: row.session_id,
    vmId: row.vm_id,
    hasEnded: row.state === 'Stopped',
  }));
}
