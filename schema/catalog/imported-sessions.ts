/** Sessions of a catalog that was lost, as far as the manifests of their restore points tell. */
import { sql } from 'kysely';
import { backupSessionWorkflowId } from '../domain/sessions.ts';
import type { Manifest } from '../domain/restore-point.ts';
import type { CatalogDatabase } from './connection.ts';
import { toJson } from './json.ts';

/** Sessions, VMs and disks that are there stay as they are; returns how many sessions were not. */
export async function importSessions(db: CatalogDatabase, manifests: readonly Manifest[]): Promise<number> {
  let added = 0;
  for (const manifest of manifests) {
    added += (await importSession(db, manifest)) ? 1 : 0;
    await importVm(db, manifest);
    await importDisks(db, manifest);
  }
  return added;
}

const resultOf = ({ warnings }: Manifest): 'Warning' | 'Success' => (warnings.length > 0 ? 'Warning' : 'Success');

/** Spans what is known of it: a session ends with its last restore point, and warns when one of them does. */
async function importSession(db: CatalogDatabase, manifest: Manifest): Promise<boolean> {
  const { sessionId, jobId, nominalTime, takenAt, sealedAt } = manifest;
  const done = await db
    .insertInto('sessions')
    .ignore()
    .values({
      session_id: sessionId,
      kind: 'backup',
      job_id: jobId,
      workflow_id: backupSessionWorkflowId(jobId, sessionId),
      started_by: 'import',
      state: 'Stopped',
      result: resultOf(manifest),
      nominal_time: new Date(nominalTime),
      started_at: new Date(takenAt),
      ended_at: new Date(sealedAt),
    })
    .executeTakeFirst();
  if ((done.numInsertedOrUpdatedRows ?? 0n) > 0n) return true;
  await db
    .updateTable('sessions')
    .set({
      started_at: sql`least(started_at, ${new Date(takenAt)})`,
      ended_at: sql`greatest(ended_at, ${new Date(sealedAt)})`,
      ...(resultOf(manifest) === 'Warning' ? { result: 'Warning' } : {}),
    })
    .where('session_id', '=', sessionId)
    .where('started_by', '=', 'import')
    .execute();
  return false;
}

async function importVm(db: CatalogDatabase, manifest: Manifest): Promise<void> {
  const { vm, sessionId, run, restorePointId, consistency, takenAt, sealedAt } = manifest;
  const { vmId: vm_id, hostId: host_id, name } = vm;
  await db
    .insertInto('virtual_machines')
    .ignore()
    .values({ vm_id, host_id, name, state: 'removed', updated_at: new Date(takenAt) })
    .execute();
  await db
    .insertInto('session_vms')
    .ignore()
    .values({
      session_id: sessionId,
      vm_id,
      host_id,
      name,
      position: 0,
      attempt: 1,
      run_key: run,
      step: 'done',
      result: resultOf(manifest),
      restore_point_id: restorePointId,
      consistency: consistency.reached,
      started_at: new Date(takenAt),
      ended_at: new Date(sealedAt),
    })
    .execute();
}

async function importDisks(db: CatalogDatabase, { sessionId, vm, disks, takenAt, sealedAt }: Manifest): Promise<void> {
  if (disks.length === 0) return;
  const rows = disks.map((disk) => ({
    session_id: sessionId,
    vm_id: vm.vmId,
    disk_key: disk.diskKey,
    mode: disk.mode,
    reason_code: disk.reason.code,
    reason_message: disk.reason.message,
    size_bytes: disk.sizeBytes,
    done_bytes: disk.sizeBytes,
    read_bytes: disk.readBytes,
    sent_bytes: disk.sentBytes,
    stored_bytes: disk.conservation.storedBytes,
    conservation: toJson(disk.conservation),
    audit: toJson(disk.audit),
    started_at: new Date(takenAt),
    ended_at: new Date(sealedAt),
  }));
  await db.insertInto('session_disks').ignore().values(rows).execute();
}
