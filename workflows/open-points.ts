/** What was begun in a repository and is not sealed: whose it is, and its end, when a person says so. */
import type { RestorePointId } from '../schema/domain/ids.ts';
import type { JudgedOpenPoint, OpenRestorePointView } from '../schema/domain/maintenance-sessions.ts';
import { controlQueue } from '../schema/domain/queues.ts';
import { errorView } from './failures.ts';
import type { MaintenanceRun } from './maintenance-run.ts';
import { say } from './say.ts';

/** More are not told: each is one VM in work, or left behind. */
const MOST_POINTS = 500;

/** `aborted`: it is not among the points any more. What is refused fails the run. */
export async function openPointsOf(
  run: MaintenanceRun,
): Promise<{ points: JudgedOpenPoint[]; aborted: RestorePointId | null }> {
  const open = await run.machines.on(run.repository, 'listOpenRestorePoints')();
  const points = await judged(run, open);
  const aborted = run.input.abort === undefined ? null : await abortOne(run, points, run.input.abort);
  const left = points.filter(({ restorePointId }) => restorePointId !== aborted);
  return { points: left.slice(0, MOST_POINTS), aborted };
}

async function judged(run: MaintenanceRun, open: readonly OpenRestorePointView[]): Promise<JudgedOpenPoint[]> {
  if (open.length === 0) return [];
  const runs = open.map((point) => point.run);
  const { closed, unknown } = await say('judgeRuns', { queue: controlQueue })({ runs, witness: run.workflowId });
  return open.map((point) => ({
    ...point,
    writer: closed.includes(point.run) ? 'none' : unknown.includes(point.run) ? 'unknown' : 'open',
  }));
}

/** Null when it was refused, or was sealed meanwhile. */
async function abortOne(
  run: MaintenanceRun,
  points: readonly JudgedOpenPoint[],
  name: string,
): Promise<RestorePointId | null> {
  const found = points.filter(({ restorePointId }) => restorePointId.startsWith(name));
  const [point] = found;
  if (!point || found.length > 1) {
    const message = point ? `several open restore points begin with ${name}` : `there is no open restore point ${name}`;
    run.fail(errorView(point ? 'BAD_REQUEST' : 'RESTORE_POINT_NOT_FOUND', message));
    return null;
  }
  const { restorePointId, run: key, writer } = point;
  if (writer !== 'none') {
    const why =
      writer === 'open' ? `a workflow with its run key ${key} is open` : 'nobody says whether it is written to';
    run.fail(errorView('ALREADY_RUNNING', `restore point ${restorePointId} is not aborted: ${why}`));
    return null;
  }
  const abort = run.machines.on(run.repository, 'abortRestorePoint', `open restore point ${restorePointId}`);
  const { outcome } = await abort({ restorePointId, run: key });
  if (outcome === 'aborted') return restorePointId;
  run.fail(errorView('RESTORE_POINT_SEALED', `restore point ${restorePointId} is sealed: it can be removed`));
  return null;
}
