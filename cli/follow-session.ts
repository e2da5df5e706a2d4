/** Watches a session to its end and reports: what `job run`, `restore` and `session watch` share. */
import type { Client } from '@temporalio/client';
import type { StackFile } from '../engines/stack/stack-file.ts';
import type { CatalogDatabase } from '../schema/catalog/connection.ts';
import { listEvents, type SessionEvent } from '../schema/catalog/events.ts';
import { loadSession, type Session, type SessionError, type SessionWithRows } from '../schema/catalog/sessions.ts';
import { type RestoredDisk, type RestoreSessionResult, signalNames } from '../schema/domain/sessions.ts';
import type { SessionResult } from '../schema/domain/states.ts';
import { catalogError } from './catalog-access.ts';
import { exitCodes } from './exit-codes.ts';
import { errorLines, renderReport } from './output/session-report.ts';
import { formatBytes, renderTable } from './output/table.ts';
import { printJson } from './run-command.ts';
import { type SessionTarget, SessionView } from './session-view.ts';
import { layoutOf } from './stack-access.ts';
import { soon, workflowUrl } from './temporal-access.ts';
import { watchSession } from './watch-session.ts';

export type Access = { db: CatalogDatabase; client: Client; stack: StackFile; state: string | undefined };

/** JSON of `session show`, and of `job run`, `restore` and `session watch` at their end. */
export type SessionReport = {
  sessionId: string;
  result: SessionResult;
  error: SessionError | null;
  /** Null when the session failed before the catalog knew of it. */
  session: SessionWithRows | null;
  events: SessionEvent[];
  /** What a restore made; empty for a backup, and for a restore that the server has forgotten. */
  files: RestoredDisk[];
  temporalUi: string;
};

export const exitCodeOfResult = (result: SessionResult): number =>
  ({ None: exitCodes.ok, Success: exitCodes.ok, Warning: exitCodes.warning, Failed: exitCodes.failed })[result];

/** Asks, and does not wait: `cancel` undoes what is in work, `graceful` lets the VMs in work finish. */
export async function stopSession(client: Client, workflowId: string, how: 'cancel' | 'graceful'): Promise<void> {
  const handle = client.workflow.getHandle(workflowId);
  await soon<unknown>(client, () => (how === 'cancel' ? handle.cancel() : handle.signal(signalNames.stop)));
}

/** Of a session of the catalog: what it is called where it is watched. */
export function targetOf(session: Session): SessionTarget {
  const { sessionId, workflowId } = session;
  const kind = session.kind === 'restore' ? 'restore' : 'backup';
  const point = (session.spec as { restorePointId?: string } | null)?.restorePointId;
  return { sessionId, workflowId, kind, name: kind === 'restore' ? `restore of ${point?.slice(0, 12) ?? 'a VM'}` : '' };
}

async function restoredFiles(client: Client, workflowId: string): Promise<RestoredDisk[]> {
  try {
    const result = await soon(client, () => client.workflow.getHandle(workflowId).result());
    return (result as RestoreSessionResult).disks;
  } catch {
    return [];
  }
}

/** What is known of a session now. */
export async function reportOn(
  target: SessionTarget,
  { db, client, stack }: Access,
  known: { runId?: string; result: SessionResult; error: SessionError | null },
): Promise<SessionReport> {
  const [session, events] = [await loadSession(db, target.sessionId), await listEvents(db, target.sessionId)];
  const isRestored = target.kind === 'restore' && known.result !== 'None' && known.result !== 'Failed';
  return {
    sessionId: target.sessionId,
    result: known.result,
    error: known.error,
    session,
    events,
    files: isRestored ? await restoredFiles(client, target.workflowId) : [],
    temporalUi: workflowUrl(stack, target.workflowId, known.runId),
  };
}

export function showReport(report: SessionReport): void {
  const { session, events, files, error, temporalUi } = report;
  if (session === null) {
    console.log(`session ${report.sessionId}: ${report.result}`);
    if (error !== null) console.log(errorLines(error).join('\n'));
    console.log(`Temporal UI: ${temporalUi}`);
    return;
  }
  console.log(renderReport({ ...session, result: report.result, error }, events, temporalUi));
  if (files.length === 0) return;
  const columns = [
    { title: 'DISK', of: (file: RestoredDisk) => file.diskKey },
    { title: 'SIZE', of: (file: RestoredDisk) => formatBytes(file.sizeBytes), right: true },
    { title: 'WRITTEN', of: (file: RestoredDisk) => formatBytes(file.writtenBytes), right: true },
    { title: 'FILE', of: (file: RestoredDisk) => file.file },
  ];
  console.log(`\n${renderTable(files, columns)}`);
}

export function showDetached({ sessionId, workflowId }: SessionTarget, stack: StackFile, json: boolean): void {
  if (json) {
    printJson({ sessionId, workflowId, detached: true, temporalUi: workflowUrl(stack, workflowId) });
    return;
  }
  console.error(`session ${sessionId} goes on`);
  console.error(`watch it: tidemark session watch ${sessionId}`);
  console.error(`stop it:  tidemark session stop ${sessionId}`);
}

/** The exit code: by the session's result, or 130 when who watched went away. */
export async function followSession(target: SessionTarget, access: Access, json: boolean): Promise<number> {
  const { db, client, stack, state } = access;
  const view = new SessionView(target, db, client);
  const stop = (how: 'cancel' | 'graceful'): Promise<void> => stopSession(client, target.workflowId, how);
  const outcome = await watchSession(view, { layout: layoutOf(state), quiet: json, stop });
  if (outcome.kind === 'detached') {
    showDetached(target, stack, json);
    return exitCodes.interrupted;
  }
  const { picture, end } = outcome;
  const known = { ...end, ...(picture.runId === null ? {} : { runId: picture.runId }) };
  const report = await reportOn(target, access, known).catch((error: unknown) => {
    throw catalogError(error, stack.database.socket);
  });
  if (json) printJson(report);
  else {
    console.log('');
    showReport(report);
  }
  return exitCodeOfResult(end.result);
}
