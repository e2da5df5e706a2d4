/** A restore session's rows: one VM that comes back, a row per disk. */
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { recordEvents } from '../../schema/catalog/events.ts';
import { listResources } from '../../schema/catalog/resources.ts';
import { loadRestorePoint } from '../../schema/catalog/restore-points.ts';
import {
  createSession,
  loadSession,
  planSessionVms,
  updateSession,
  updateSessionDisk,
  updateSessionVm,
} from '../../schema/catalog/sessions.ts';
import type { ProxyConfig } from '../../schema/domain/configuration.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { RestoreSessionInput, StartedRestore } from '../../schema/domain/sessions.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import { withCatalogErrors } from '../catalog-errors.ts';
import type { ControlActivities } from '../contract.ts';
import { translating } from '../failures.ts';
import { planRestore } from './plan-restore.ts';
import { eventsOf } from './session-activities.ts';

type RestoreSessionActivities = Pick<ControlActivities, 'startRestore' | 'recordRestore'>;
/** What a restore session's row keeps of what was asked and decided. */
export type RestoreSessionSpec = { input: RestoreSessionInput; started: StartedRestore };

export function createRestoreSessionActivities({
  db,
  clock,
}: {
  db: CatalogDatabase;
  clock: Clock;
}): RestoreSessionActivities {
  return translating(
    withCatalogErrors({
      startRestore: (of) => startRestore(db, of),
      recordRestore: async ({ sessionId, disks, findings }) => {
        const session = await loadSession(db, sessionId);
        const vm = session?.vms[0];
        if (!vm) throw new TidemarkError('NOT_FOUND', `there is no restore session ${sessionId}`, { sessionId });
        const endedAt = new Date(clock.now()).toISOString();
        for (const { diskKey, proxyId = null, sizeBytes, receivedBytes, writtenBytes, stages = null } of disks) {
          const figures = {
            proxyId,
            sizeBytes,
            doneBytes: sizeBytes,
            readBytes: receivedBytes,
            sentBytes: writtenBytes,
            stages,
          };
          await updateSessionDisk(db, sessionId, vm.vmId, diskKey, { ...figures, waitsFor: null, endedAt });
        }
        await recordEvents(db, eventsOf(sessionId, 'restore', findings, endedAt));
      },
    } satisfies RestoreSessionActivities),
  );
}

async function startRestore(
  db: CatalogDatabase,
  { input, workflowId, startedAt }: Parameters<ControlActivities['startRestore']>[0],
): Promise<StartedRestore> {
  const { sessionId, restorePointId } = input;
  const found = await loadRestorePoint(db, restorePointId);
  if (!found)
    throw new TidemarkError('RESTORE_POINT_NOT_FOUND', `the catalog knows no restore point ${restorePointId}`, {
      restorePointId,
    });
  const proxies = (await listResources(db, 'proxy')).filter(({ state }) => state !== 'removed');
  const started = planRestore(
    input,
    found.manifest,
    proxies.map(({ config }) => config as ProxyConfig),
  );
  const { vmId, hostId } = found.manifest.vm;
  const spec: RestoreSessionSpec = { input, started };
  const times = { nominalTime: startedAt, startedAt };
  await createSession(db, { sessionId, kind: 'restore', jobId: null, workflowId, startedBy: 'manual', ...times, spec });
  await planSessionVms(db, sessionId, [{ vmId, name: started.vmName, hostId }]);
  await updateSessionVm(db, sessionId, vmId, { attempt: 1, workflowId, restorePointId, startedAt });
  for (const { diskKey, sizeBytes } of started.disks)
    await updateSessionDisk(db, sessionId, vmId, diskKey, { sizeBytes, startedAt });
  await updateSession(db, sessionId, { state: 'Working' });
  return started;
}
