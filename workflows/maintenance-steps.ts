/** The steps of a repository's maintenance: each says what came of it, and has it recorded. */
import { formatBytes } from '../schema/domain/figures.ts';
import type { RestorePointId } from '../schema/domain/ids.ts';
import type { LineageId } from '../schema/domain/ids.ts';
import type {
  GoneRestorePoint,
  ImportCounts,
  LineagePolicy,
  LineageRetention,
  MaintenanceOutcome,
  MaintenanceStep,
} from '../schema/domain/maintenance-sessions.ts';
import type { CheckReport } from '../schema/domain/maintenance.ts';
import { controlQueue } from '../schema/domain/queues.ts';
import type { Finding } from '../schema/domain/states.ts';
import { errorView } from './failures.ts';
import type { MaintenanceRun } from './maintenance-run.ts';
import { openPointsOf } from './open-points.ts';
import { doubtsToTell, leftToRetain } from './retention-pages.ts';
import { say } from './say.ts';

/** Resolves with what came of it, in words. */
export const maintenanceStepWork: Record<MaintenanceStep, (run: MaintenanceRun) => Promise<string>> = {
  import: importAll,
  retention: retainAll,
  collection: collect,
  check,
  repair,
  statistics: measure,
  'reset-clock': resetClock,
  'open-points': openPoints,
};

async function record(run: MaintenanceRun, outcome: MaintenanceOutcome, part = 0): Promise<void> {
  const { sessionId, repositoryId } = run.input;
  const say_ = say('recordMaintenance', { queue: controlQueue, summary: outcome.step });
  const { alarms } = await say_({ sessionId, repositoryId, part, outcome });
  run.note(...alarms);
}

/** Of ids that may be many: those of one answer. */
const IDS_AT_ONCE = 500;

async function importAll(run: MaintenanceRun): Promise<string> {
  const { repositoryId } = run.input;
  const begun = run.takeCursor('import');
  const counts: ImportCounts = begun?.counts ?? nothingImported();
  const reconcile = say('reconcileRestorePoints', { queue: controlQueue });
  let after: RestorePointId | null = begun?.after ?? null;
  for (;;) {
    const page = await run.machines.on(run.repository, 'listRestorePoints')({ after });
    const { missing, trashed, changed, removed, gone = [] } = await reconcile({ repositoryId, page });
    counts.restorePoints += page.signs.length;
    counts.trashed += trashed;
    counts.changed += changed;
    counts.removed += removed;
    // At once: with the catalog's rows went all that was known of them.
    if (gone.length > 0) run.note(lossOf(gone, removed));
    await importMissing(run, missing, counts);
    run.step('import', 'working', `${counts.restorePoints} restore points looked at, ${counts.added} added`);
    after = page.upTo;
    if (after === null) break;
    await run.turnPage({ step: 'import', after, counts });
  }
  await record(run, { step: 'import', counts });
  const { restorePoints, trashed, added, changed, removed } = counts;
  const inTrash = trashed === 0 ? '' : ` and ${trashed} in the trash`;
  return `${restorePoints} restore points${inTrash}: ${added} added to the catalog, ${changed} changed, ${removed} no longer there`;
}

/** Whoever removes a restore point leaves it in the trash first, so nobody did. */
function lossOf(gone: readonly GoneRestorePoint[], removed: number): Finding {
  const names = gone.map(({ restorePointId, vmName }) => `${restorePointId} of VM ${vmName}`).join(', ');
  const more = removed > gone.length ? ` and ${removed - gone.length} more` : '';
  const message =
    `gone from the repository, and not by way of its trash: ${removed === 1 ? '1 restore point' : `${removed} restore points`}, ` +
    `${names}${more}. Keep its folder as it is, find out what happened to it, and look for damaged manifests: ` +
    '`tidemark repository check`, then `tidemark repository repair`';
  return { level: 'warning', code: 'RESTORE_POINT_NOT_FOUND', message };
}

const nothingImported = (): ImportCounts => ({
  restorePoints: 0,
  trashed: 0,
  added: 0,
  changed: 0,
  removed: 0,
  sessionsAdded: 0,
});

async function importMissing(run: MaintenanceRun, missing: RestorePointId[], counts: ImportCounts): Promise<void> {
  for (let left = missing; left.length > 0;) {
    const restorePointIds = left.slice(0, IDS_AT_ONCE);
    const packed = await run.machines.on(run.repository, 'describeRestorePoints')({ restorePointIds });
    const { sessionsAdded } = await say('importRestorePoints', { queue: controlQueue })(packed);
    counts.added += packed.count;
    counts.sessionsAdded += sessionsAdded;
    left = left.slice(packed.count);
  }
}

async function retainAll(run: MaintenanceRun): Promise<string> {
  const { repositoryId, dryRun } = run.input;
  const begun = run.takeCursor('retention');
  const told = begun?.told ?? { stays: 0, goes: 0, refused: 0 };
  let after: LineageId | null = begun?.after ?? null;
  let left: LineagePolicy[] = begun?.left ?? [];
  for (let part = begun?.part ?? 0; part === 0 || left.length > 0 || after !== null; part += 1) {
    if (left.length === 0) {
      const plan = await say('planRetention', { queue: controlQueue })({ repositoryId, after });
      [left, after] = [plan.lineages, plan.next];
    }
    const lineages = await run.machines.on(run.repository, 'applyRetention')({ lineages: left, dryRun });
    await record(run, { step: 'retention', dryRun, lineages }, part);
    count(told, lineages);
    run.note(...doubtsToTell(lineages, run.findings));
    left = leftToRetain(left, lineages);
    if (left.length > 0 || after !== null) await run.turnPage({ step: 'retention', after, left, part: part + 1, told });
  }
  const refused = told.refused === 0 ? '' : `, ${told.refused} of those are kept, held or locked`;
  return `${told.goes} restore points ${dryRun ? 'would go' : 'went to the trash'}, ${told.stays + told.refused} stay${refused}`;
}

function count(told: { stays: number; goes: number; refused: number }, lineages: readonly LineageRetention[]): void {
  for (const { stays, decisions } of lineages) {
    told.stays += stays;
    for (const { outcome } of decisions) {
      if (outcome === 'removed' || outcome === 'would-go') told.goes += 1;
      if (outcome === 'refused') told.refused += 1;
    }
  }
}

async function collect(run: MaintenanceRun): Promise<string> {
  const report = await run.machines.on(run.repositoryWork, 'collectGarbage')();
  await record(run, { step: 'collection', report });
  if (report.stopped) {
    const { code, message } = report.stopped;
    run.note({ level: 'warning', code, message: `the collection removed nothing: ${message}` });
  }
  const { packsTrashed, packsRewritten, packsRemoved, removedBytes, deadBytesLeft } = report;
  return (
    `${packsTrashed} packs to the trash, ${packsRewritten} of them rewritten; ${packsRemoved} removed for good ` +
    `(${formatBytes(removedBytes)}); ${formatBytes(deadBytesLeft)} that nothing needs are left`
  );
}

async function check(run: MaintenanceRun): Promise<string> {
  const request = run.input.check;
  if (request === null) return 'nothing was asked for';
  const what = request.restorePointId ?? request.vmId ?? 'the repository';
  const { report, damageCount } = await run.machines.on(
    run.repositoryWork,
    'checkRepository',
    `${request.depth}: ${what}`,
  )(request);
  await record(run, { step: 'check', report, damageCount });
  if (damageCount > 0) run.fail(errorView('DAMAGE_FOUND', damageText(report, damageCount)));
  const { packs, restorePoints, checkedBytes, whole, healed } = report;
  const looked = `${packs} packs, ${restorePoints} restore points, ${formatBytes(checkedBytes)} read`;
  const rest = whole ? '' : '; the next check goes on from there';
  const again = healed.length === 0 ? '' : `; ${healed.length} restore points are whole again`;
  return `${looked}: ${damageCount === 0 ? 'no damage' : `${damageCount} damaged places`}${again}${rest}`;
}

function damageText({ damages, marked }: CheckReport, damageCount: number): string {
  const [first] = damages;
  const places = damageCount === 1 ? '1 damaged place' : `${damageCount} damaged places`;
  const hit = marked.length === 1 ? '1 restore point' : `${marked.length} restore points`;
  return `${places}, by which ${hit} cannot be restored whole${first ? `; the first: ${first.name}: ${first.why.message}` : ''}`;
}

async function repair(run: MaintenanceRun): Promise<string> {
  const { dryRun } = run.input;
  const report = await run.machines.on(run.repositoryWork, 'repairRepository')({ dryRun });
  await record(run, { step: 'repair', dryRun, report });
  const { packsSalvaged, recordsSaved, recordsLost, packsRestored, damaged, whole } = report;
  if (damaged.length > 0) {
    const missing = damaged.reduce((sum, { missingBytes }) => sum + missingBytes, 0);
    const message = `${damaged.length} restore points cannot be restored whole: ${formatBytes(missing)} of them are missing`;
    run.fail(errorView('DAMAGE_FOUND', message));
  }
  return (
    `${dryRun ? 'would save' : 'saved'} ${recordsSaved} records of ${packsSalvaged} damaged packs, ${recordsLost} are lost; ` +
    `${packsRestored} packs from the trash; ${whole} restore points are whole`
  );
}

async function openPoints(run: MaintenanceRun): Promise<string> {
  const { points, aborted } = await openPointsOf(run);
  await record(run, { step: 'open-points', points, aborted });
  const what = aborted === null ? '' : `restore point ${aborted} was aborted; `;
  return `${what}${points.length} are open, nobody writes to ${points.filter(({ writer }) => writer === 'none').length} of them`;
}

async function resetClock(run: MaintenanceRun): Promise<string> {
  const { today = '' } = run.input;
  const reset = await run.machines.on(run.repository, 'resetClock', `to ${today}`)({ today });
  await record(run, { step: 'reset-clock', reset });
  return reset.reset
    ? `repository time was set back from ${reset.from} to ${reset.to}`
    : `repository time is right: ${reset.to}`;
}

async function measure(run: MaintenanceRun): Promise<string> {
  const { statistics, space } = await run.machines.on(run.repositoryWork, 'measureRepository')();
  await record(run, { step: 'statistics', statistics, space });
  const { restorePoints, vms, logicalBytes, storedBytes } = statistics;
  const free = space === null ? '' : `; ${formatBytes(space.freeBytes)} of ${formatBytes(space.totalBytes)} are free`;
  return `${restorePoints} restore points, VMs: ${vms}, ${formatBytes(logicalBytes)} in ${formatBytes(storedBytes)}${free}`;
}
