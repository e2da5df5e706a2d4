/** Watches a session to its end and reports: what `job run`, `restore` and `session watch` share. */
import path from 'node:path';
import type { Client } from '@temporalio/client';
import type { RestoreSessionSpec } from '../activities/session/restore-session-activities.ts';
import type { StackFile } from '../engines/stack/stack-file.ts';
import type { CatalogDatabase } from '../schema/catalog/connection.ts';
import { listEvents, type SessionEvent } from '../schema/catalog/events.ts';
import { listOutcomes } from '../schema/catalog/maintenance-outcomes.ts';
import { listResources } from '../schema/catalog/resources.ts';
import {
  loadSession,
  type Session,
  type SessionError,
  type SessionKind,
  type SessionWithRows,
} from '../schema/catalog/sessions.ts';
import type { MaintenanceOutcome } from '../schema/domain/maintenance-sessions.ts';
import { signalNames } from '../schema/domain/sessions.ts';
import type { SessionResult } from '../schema/domain/states.ts';
import { catalogError } from './catalog-access.ts';
import { exitCodes } from './exit-codes.ts';
import { errorLines, renderReport, type RestoredFile } from './output/session-report.ts';
import { printJson } from './run-command.ts';
import { type Bottleneck, bottleneckOf } from './session-stages.ts';
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
  /** What a restore has made; empty for others. Bytes. */
  files: RestoredFile[];
  /** What the steps of a maintenance came to; empty for others. */
  outcomes: MaintenanceOutcome[];
  /** What held its transfers up; null when nothing is known of it. */
  bottleneck: Bottleneck | null;
  temporalUi: string;
};

export const exitCodeOfResult = (result: SessionResult): number =>
  ({ None: exitCodes.ok, Success: exitCodes.ok, Warning: exitCodes.warning, Failed: exitCodes.failed })[result];

/** Asks, and does not wait: `cancel` undoes what is in work, `graceful` lets the VMs in work finish. */
export async function stopSession(client: Client, workflowId: string, how: 'cancel' | 'graceful'): Promise<void> {
  const handle = client.workflow.getHandle(workflowId);
  await soon<unknown>(client, () => (how === 'cancel' ? handle.cancel() : handle.signal(signalNames.stop)));
}

const restoreOf = (session: Session): RestoreSessionSpec | null =>
  session.kind === 'restore' ? (session.spec as RestoreSessionSpec | null) : null;

/** Of a session of the catalog: what it is called where it is watched. */
export function targetOf(session: Session): SessionTarget {
  const { sessionId, workflowId } = session;
  const kind = session.kind as SessionKind;
  return { sessionId, workflowId, kind, name: restoreOf(session)?.started.vmName ?? '' };
}

/** What an ended restore has made, and where. */
async function restoredFiles(db: CatalogDatabase, session: SessionWithRows | null): Promise<RestoredFile[]> {
  const spec = session && restoreOf(session);
  if (!spec || session.result === 'None' || session.result === 'Failed') return [];
  const machines = new Map((await listResources(db, 'proxy')).map(({ id, machineId }) => [id, machineId]));
  const rows = session.vms.flatMap((vm) => vm.disks);
  return spec.started.disks.map(({ diskKey, sizeBytes, fileName }) => {
    const row = rows.find((disk) => disk.diskKey === diskKey);
    const figures = { receivedBytes: row?.readBytes ?? 0, writtenBytes: row?.sentBytes ?? 0 };
    const stages = row?.stages ? { stages: row.stages } : {};
    const proxyId = row?.proxyId ?? null;
    const at = { proxyId, machineId: machines.get(proxyId ?? '') ?? null };
    return { diskKey, file: path.join(spec.input.folder, fileName), ...at, sizeBytes, ...figures, ...stages };
  });
}

/** What is known of a session now. The row of one that has ended says how; else `known` does. */
export async function reportOn(
  target: SessionTarget,
  { db, stack }: Pick<Access, 'db' | 'stack'>,
  known: { runId?: string; result: SessionResult; error: SessionError | null },
): Promise<SessionReport> {
  const { sessionId } = target;
  const [session, events] = [await loadSession(db, sessionId), await listEvents(db, sessionId)];
  const outcomes = target.kind === 'maintenance' ? await listOutcomes(db, sessionId) : [];
  const { result, error } = session?.state === 'Stopped' ? session : known;
  return {
    sessionId: target.sessionId,
    result,
    error,
    session,
    events,
    files: await restoredFiles(db, session),
    outcomes,
    bottleneck: bottleneckOf(session),
    temporalUi: workflowUrl(stack, target.workflowId, known.runId),
  };
}

export function showReport(report: SessionReport): void {
  const { session, events, files, outcomes, error, temporalUi } = report;
  if (session === null) {
    console.log(`session ${report.sessionId}: ${report.result}`);
    if (error !== null) console.log(errorLines(error).join('\n'));
    console.log(`Temporal UI: ${temporalUi}`);
    return;
  }
  console.log(
    renderReport({ session: { ...session, result: report.result, error }, events, files, outcomes, uiUrl: temporalUi }),
  );
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

/** Shows a session until it ends; null when who watched went away. */
export async function watchToEnd(target: SessionTarget, access: Access, quiet: boolean): Promise<SessionReport | null> {
  const { db, client, stack, state } = access;
  const view = new SessionView(target, db, client);
  const stop = (how: 'cancel' | 'graceful'): Promise<void> => stopSession(client, target.workflowId, how);
  const outcome = await watchSession(view, { layout: layoutOf(state), quiet, stop });
  if (outcome.kind === 'detached') return null;
  const { picture, end } = outcome;
  const known = { ...end, ...(picture.runId === null ? {} : { runId: picture.runId }) };
  return await reportOn(target, access, known).catch((error: unknown) => {
    throw catalogError(error, stack.database.socket);
  });
}

/** The exit code: by the session's result, or 130 when who watched went away. */
export async function followSession(target: SessionTarget, access: Access, json: boolean): Promise<number> {
  const report = await watchToEnd(target, access, json);
  if (report === null) {
    showDetached(target, access.stack, json);
    return exitCodes.interrupted;
  }
  if (json) printJson(report);
  else {
    console.log('');
    showReport(report);
  }
  return exitCodeOfResult(report.result);
}
