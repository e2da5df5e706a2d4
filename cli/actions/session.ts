/** `tidemark session`: lists, shows, watches and stops sessions. */
import type { Client } from '@temporalio/client';
import type { StackFile } from '../../engines/stack/stack-file.ts';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listSessions, type Session } from '../../schema/catalog/sessions.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { withCatalog } from '../catalog-access.ts';
import { exitCodes } from '../exit-codes.ts';
import { findSession, requireKnown } from '../find-names.ts';
import { type Access, followSession, reportOn, showReport, stopSession, targetOf } from '../follow-session.ts';
import { tookOf } from '../output/session-report.ts';
import { formatTime, renderTable } from '../output/table.ts';
import { printJson } from '../run-command.ts';
import { describeWorkflow, type WorkflowPicture, withTemporal } from '../temporal-access.ts';
import type { ReadOptions } from './job.ts';

export type ListOptions = ReadOptions & { job?: string; open?: boolean; limit: number };

export function list(options: ListOptions): Promise<number> {
  return withCatalog(options.state, async (db) => {
    const { job, open, limit } = options;
    const filter = { limit, ...(job === undefined ? {} : { jobId: job }), ...(open === undefined ? {} : { open }) };
    const sessions = await listSessions(db, filter);
    if (sessions.length === 0) await requireKnown(db, { job });
    const columns = [
      { title: 'SESSION', of: (session: Session) => session.sessionId },
      { title: 'KIND', of: (session: Session) => session.kind },
      { title: 'OF', of: (session: Session) => session.jobId ?? session.repositoryId ?? '-' },
      { title: 'STATE', of: (session: Session) => session.state },
      { title: 'RESULT', of: (session: Session) => (session.result === 'None' ? '-' : session.result) },
      { title: 'STARTED', of: (session: Session) => formatTime(session.startedAt) },
      { title: 'TOOK', of: tookOf, right: true },
    ];
    if (options.json) printJson({ sessions });
    else console.log(sessions.length === 0 ? 'no sessions' : renderTable(sessions, columns));
    return exitCodes.ok;
  });
}

/** With catalog, Temporal, and the session a person named. */
function withSession(
  name: string,
  state: string | undefined,
  work: (session: Session, access: Access) => Promise<number>,
): Promise<number> {
  return withCatalog(state, async (db: CatalogDatabase, stack: StackFile) => {
    const session = await findSession(db, name);
    return withTemporal(stack, (client: Client) => work(session, { db, client, stack, state }));
  });
}

export function show(name: string, options: ReadOptions): Promise<number> {
  return withSession(name, options.state, async (session, access) => {
    const target = targetOf(session);
    const picture = await describeWorkflow(access.client, session.workflowId);
    const known = { result: session.result, error: session.error, ...(picture ? { runId: picture.runId } : {}) };
    const report = await reportOn(target, access, known);
    if (options.json) printJson(report);
    else showReport(report);
    return exitCodes.ok;
  });
}

export function watch(name: string, options: ReadOptions): Promise<number> {
  return withSession(name, options.state, (session, access) =>
    followSession(targetOf(session), access, options.json === true),
  );
}

export type StopOptions = ReadOptions & { graceful?: boolean; wait?: boolean };

function endedText({ sessionId, state, result }: Session, picture: WorkflowPicture | null): string {
  if (state === 'Stopped') return `session ${sessionId} has ended: ${result}`;
  const known = picture === null ? 'Temporal does not know it any more' : `its workflow is closed (${picture.status})`;
  return `session ${sessionId} is not running: ${known}; the control worker closes it within a quarter of an hour`;
}

/** Stopping what has ended already is no mistake: it is said, and done. */
export function stop(name: string, options: StopOptions): Promise<number> {
  return withSession(name, options.state, async (session, access) => {
    const { sessionId, workflowId, kind } = session;
    if (options.graceful && kind !== 'backup')
      throw new TidemarkError('BAD_REQUEST', `session ${sessionId} is a ${kind}: it can only be stopped at once`, {
        sessionId,
      });
    const picture = await describeWorkflow(access.client, workflowId);
    const isRunning = picture?.status === 'RUNNING';
    if (isRunning) await stopSession(access.client, workflowId, options.graceful ? 'graceful' : 'cancel');
    // What nobody knows an end of is not waited for.
    const hasEnd = picture !== null || session.state === 'Stopped';
    if (options.wait && hasEnd) return followSession(targetOf(session), access, options.json === true);
    if (options.json) printJson({ sessionId, asked: isRunning, graceful: options.graceful === true });
    else console.log(isRunning ? `asked session ${sessionId} to stop` : endedText(session, picture));
    return exitCodes.ok;
  });
}
