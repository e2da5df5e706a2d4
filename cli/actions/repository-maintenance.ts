/** `tidemark repository check|prune|import|repair|stats`: sessions of a repository's maintenance. */
import { didYouMean } from '../../engines/site/nearest-name.ts';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listResources, type ResourceRow } from '../../schema/catalog/resources.ts';
import { listRestorePoints } from '../../schema/catalog/restore-points.ts';
import { listSessions } from '../../schema/catalog/sessions.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { repositoryId, restorePointId } from '../../schema/domain/ids.ts';
import type { CheckRequest } from '../../schema/domain/maintenance.ts';
import {
  type Access,
  exitCodeOfResult,
  followSession,
  showDetached,
  showReport,
  watchToEnd,
} from '../follow-session.ts';
import { withCatalog } from '../catalog-access.ts';
import { exitCodes } from '../exit-codes.ts';
import { findRestorePoint } from '../find-names.ts';
import { renderStatistics } from '../output/statistics-report.ts';
import { type Figures, figuresOf } from '../repository-figures.ts';
import { printJson } from '../run-command.ts';
import type { SessionTarget } from '../session-view.ts';
import { type AskedMaintenance, startMaintenance } from '../start-session.ts';
import { describeWorkflow, withTemporal } from '../temporal-access.ts';
import {
  type CheckOptions,
  checkDepth,
  type DryRunOptions,
  type MaintenanceOptions,
  type OfflineOptions,
  type OpenPointsOptions,
  type ResetClockOptions,
  type StatsOptions,
} from './maintenance-options.ts';

/** BAD_REQUEST unless exactly one of name and folder is given. */
function isOffline(name: string | undefined, { offline }: OfflineOptions): name is undefined {
  if ((name === undefined) !== (offline === undefined)) return offline !== undefined;
  throw new TidemarkError('BAD_REQUEST', 'give either the name of a repository or --offline with its folder');
}
const loadOffline = () => import('./repository-offline.ts');

/** NOT_FOUND with the nearest name. */
export async function findRepository(db: CatalogDatabase, name: string): Promise<ResourceRow> {
  const known = (await listResources(db, 'repository')).filter(({ state }) => state !== 'removed');
  const found = known.find(({ id }) => id === name);
  if (found) return found;
  const names = known.map(({ id }) => id);
  const message = `there is no repository ${name} in the site${didYouMean(name, names)}`;
  throw new TidemarkError('NOT_FOUND', message, { repository: name, repositories: names });
}

/** The session's own first step decides; this one tells a person before anything is started. */
async function assertNotRunning({ db, client }: Access, repository: string): Promise<void> {
  for (const session of await listSessions(db, { repositoryId: repository, open: true, limit: 5 })) {
    const picture = await describeWorkflow(client, session.workflowId);
    if (picture?.status !== 'RUNNING') continue;
    const { sessionId, startedAt } = session;
    const message = `maintenance of repository ${repository} runs already: session ${sessionId}, since ${startedAt}`;
    throw new TidemarkError('ALREADY_RUNNING', message, { repository, sessionId });
  }
}

type Asked = Omit<AskedMaintenance, 'repositoryId'>;

async function begin(
  name: string,
  options: MaintenanceOptions,
  ask: (db: CatalogDatabase) => Promise<Asked>,
  follow: (target: SessionTarget, access: Access) => Promise<number>,
): Promise<number> {
  const { state } = options;
  return await withCatalog(state, async (db, stack) => {
    const { id } = await findRepository(db, name);
    const asked = await ask(db);
    return await withTemporal(stack, async (client) => {
      const access = { db, client, stack, state };
      await assertNotRunning(access, id);
      const started = await startMaintenance(client, { repositoryId: repositoryId(id), ...asked });
      const target = { ...started, kind: 'maintenance' as const, name: '' };
      if (!options.detach) return await follow(target, access);
      showDetached(target, stack, options.json === true);
      return exitCodes.ok;
    });
  });
}

const maintain = (name: string, options: MaintenanceOptions, asked: Asked): Promise<number> =>
  begin(
    name,
    options,
    () => Promise.resolve(asked),
    (target, access) => followSession(target, access, options.json === true),
  );

export const prune = (name: string, options: DryRunOptions): Promise<number> =>
  maintain(
    name,
    options,
    options.dryRun
      ? { steps: ['retention'], check: null, dryRun: true }
      : { steps: ['import', 'retention', 'collection', 'statistics'], check: null, dryRun: false },
  );

export const importCatalog = (name: string, options: MaintenanceOptions): Promise<number> =>
  maintain(name, options, { steps: ['import', 'statistics'], check: null, dryRun: false });

/** BAD_REQUEST for what is no beginning of an id. */
export async function openPoints(name: string, options: OpenPointsOptions): Promise<number> {
  const { abort } = options;
  if (abort !== undefined && !/^[0-9a-f]{4,32}$/.test(abort))
    throw new TidemarkError('BAD_REQUEST', "--abort takes a restore point's id, at least its first 4 characters", {
      abort,
    });
  const asked = { steps: ['open-points' as const], check: null, dryRun: false };
  return await maintain(name, options, abort === undefined ? asked : { ...asked, abort });
}

/** Then the figures: whoever lists the repository is not warned any more. */
export const resetClock = (name: string, options: ResetClockOptions): Promise<number> =>
  maintain(name, options, { steps: ['reset-clock', 'statistics'], check: null, dryRun: false, today: options.today });

/** Then the catalog: whoever lists the restore points is told what the repair has made of them. */
export async function repair(name: string | undefined, options: DryRunOptions): Promise<number> {
  if (isOffline(name, options)) return await (await loadOffline()).repairOffline(options);
  const { dryRun = false } = options;
  const steps: Asked['steps'] = dryRun ? ['repair'] : ['repair', 'import', 'statistics'];
  return await maintain(name, options, { steps, check: null, dryRun });
}

async function checkRequest(db: CatalogDatabase, repository: string, options: CheckOptions): Promise<CheckRequest> {
  const { vm, restorePoint, maxBytes = null, maxTime: maxMs = null } = options;
  if (vm !== undefined && restorePoint !== undefined)
    throw new TidemarkError('BAD_REQUEST', 'give either --vm or --restore-point');
  const bounds = { depth: checkDepth(options), maxBytes, maxMs };
  if (restorePoint !== undefined) {
    const found = await findRestorePoint(db, restorePoint);
    if (found.repositoryId !== repository)
      throw new TidemarkError('BAD_REQUEST', `restore point ${restorePoint} is in repository ${found.repositoryId}`);
    return { ...bounds, vmId: null, restorePointId: restorePointId(found.restorePointId) };
  }
  return { ...bounds, vmId: vm === undefined ? null : await findVm(db, repository, vm), restorePointId: null };
}

/** By name or id, of those that have restore points there. VM_NOT_FOUND; BAD_REQUEST when several have the name. */
async function findVm(db: CatalogDatabase, repository: string, name: string): Promise<string> {
  const points = await listRestorePoints(db, { repositoryId: repository, limit: 100_000 });
  const ids = [...new Set(points.filter((each) => each.vmName === name || each.vmId === name).map(({ vmId }) => vmId))];
  if (ids.length === 1) return ids[0]!;
  if (ids.length > 1)
    throw new TidemarkError('BAD_REQUEST', `several VMs are called ${name}; write the id: ${ids.join(', ')}`, { ids });
  const names = [...new Set(points.map(({ vmName }) => vmName))];
  const message = `VM ${name} has no restore point in repository ${repository}${didYouMean(name, names)}`;
  throw new TidemarkError('VM_NOT_FOUND', message, { vm: name });
}

export async function check(name: string | undefined, options: CheckOptions): Promise<number> {
  if (isOffline(name, options)) return await (await loadOffline()).checkOffline(options);
  return await begin(
    name,
    options,
    async (db) => ({ steps: ['check'], check: await checkRequest(db, name, options), dryRun: false }),
    (target, access) => followSession(target, access, options.json === true),
  );
}

/** Asked of the repository now, with what the catalog remembers of the days before. */
export async function stats(name: string | undefined, options: StatsOptions): Promise<number> {
  if (isOffline(name, options)) return await (await loadOffline()).statsOffline(options);
  return await begin(
    name,
    options,
    () => Promise.resolve({ steps: ['statistics'], check: null, dryRun: false }),
    async (target, access) => {
      const json = options.json === true;
      const report = await watchToEnd(target, access, true);
      if (report === null) {
        showDetached(target, access.stack, json);
        return exitCodes.interrupted;
      }
      if (report.result === 'Failed') {
        if (json) printJson(report);
        else showReport(report);
        return exitCodeOfResult(report.result);
      }
      const figures = await figuresOf(access.db, await findRepository(access.db, name));
      if (json) printJson({ repository: name, sessionId: target.sessionId, ...figures });
      else showFigures(name, figures);
      return exitCodeOfResult(report.result);
    },
  );
}

function showFigures(name: string, { statistics, space, daysUntilFull: days, alarms }: Figures): void {
  console.log(`repository ${name}`);
  if (statistics) console.log(renderStatistics(statistics, space));
  console.log(`${'full in:'.padEnd(20)} ${days === null ? 'not foreseen' : `${days} days, at the present rate`}`);
  for (const alarm of alarms) console.error(`warning: ${alarm}`);
}
