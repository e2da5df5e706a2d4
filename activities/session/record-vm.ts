/** The end of a VM's backup, or of a restore, as rows and events. */
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { recordEvents, type SessionEvent } from '../../schema/catalog/events.ts';
import { updateSessionDisk, updateSessionVm } from '../../schema/catalog/sessions.ts';
import type { VmDiskResult } from '../../schema/domain/sessions.ts';
import type { ControlActivities } from '../contract.ts';

export async function recordVmRows(
  db: CatalogDatabase,
  { sessionId, step, result }: Parameters<ControlActivities['recordVm']>[0],
): Promise<void> {
  const { vmId, run, error, restorePointId, consistency, startedAt, endedAt } = result;
  for (const disk of result.disks) await updateSessionDisk(db, sessionId, vmId, disk.diskKey, diskRow(disk, result));
  const events: SessionEvent[] = result.findings.map((finding, index) => ({
    sessionId,
    vmId,
    eventKey: `${run}-${index}`,
    at: endedAt,
    ...finding,
  }));
  if (error)
    events.push({ sessionId, vmId, eventKey: `${run}-error`, at: endedAt, level: 'error', ...codeAndMessage(error) });
  await recordEvents(db, events);
  // Last: once the row says that it ended, all of it is there.
  const end = { step, result: result.result, error, restorePointId, consistency, startedAt, endedAt, waitsFor: null };
  await updateSessionVm(db, sessionId, vmId, end);
}

const codeAndMessage = ({ code, message }: { code: string; message: string }) => ({ code, message });

function diskRow(disk: VmDiskResult, { startedAt, endedAt }: { startedAt: string; endedAt: string }) {
  const { mode, reason, proxyId, sizeBytes, readBytes, sentBytes, conservation, audit, stages } = disk;
  return {
    mode,
    reason,
    proxyId,
    sizeBytes,
    doneBytes: conservation ? sizeBytes : 0,
    readBytes,
    sentBytes,
    storedBytes: conservation?.storedBytes ?? 0,
    conservation,
    audit,
    stages: stages ?? null,
    rateBytesPerSecond: null,
    waitsFor: null,
    startedAt,
    endedAt,
  };
}
