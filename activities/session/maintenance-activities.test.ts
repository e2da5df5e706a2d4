import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listEvents } from '../../schema/catalog/events.ts';
import { enqueueRequest } from '../../schema/catalog/leases.ts';
import { listOutcomes } from '../../schema/catalog/maintenance-outcomes.ts';
import { loadRepositoryFigures } from '../../schema/catalog/repository-figures.ts';
import { listRestorePoints } from '../../schema/catalog/restore-points.ts';
import { loadSession } from '../../schema/catalog/sessions.ts';
import { applySite } from '../../schema/catalog/site.ts';
import { type LineageId, repositoryId, restorePointId, runKey, sessionId } from '../../schema/domain/ids.ts';
import type {
  LineageRetention,
  MaintenanceOutcome,
  RepositoryMaintenanceInput,
} from '../../schema/domain/maintenance-sessions.ts';
import { requestOrders } from '../../schema/domain/scheduling.ts';
import { site, startTestCatalog, type TestCatalog, Workflows } from '../../tests/fixtures/control.ts';
import { recordTestPoint } from '../../tests/fixtures/cli/restore-points.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { packRestorePoints } from '../repository/restore-point-pages.ts';
import { createMaintenanceActivities } from './maintenance-activities.ts';

const startedAt = '2026-11-25T00:00:00.000Z';
const main = repositoryId('main');
const { clock } = testSeams();
let catalog: TestCatalog;
let db: CatalogDatabase;
let workflows: Workflows;
let activities: ReturnType<typeof createMaintenanceActivities>;
beforeAll(async () => {
  catalog = await startTestCatalog();
  ({ db } = catalog);
});
afterAll(() => catalog?.close());
beforeEach(async () => {
  await catalog.reset();
  workflows = new Workflows();
  activities = createMaintenanceActivities({ db, workflows, clock });
});

const session = sessionId('m1');
const input = (id: string, change: Partial<RepositoryMaintenanceInput> = {}) => ({
  version: 1 as const,
  repositoryId: main,
  startedBy: 'manual' as const,
  steps: ['retention' as const],
  check: null,
  dryRun: false,
  ...change,
  sessionId: sessionId(id),
});
const start = (id: string, change: Partial<RepositoryMaintenanceInput> = {}) =>
  activities.startMaintenance({ input: input(id, change), workflowId: `w-${id}`, startedAt });
const record = (outcome: MaintenanceOutcome) =>
  activities.recordMaintenance({ sessionId: session, repositoryId: main, part: 0, outcome });

describe('a maintenance', () => {
  it('is a session of its repository, one at a time, of a repository that is there', async () => {
    await start('m1');
    await start('m1');
    expect(await loadSession(db, 'm1')).toMatchObject({
      kind: 'maintenance',
      jobId: null,
      repositoryId: 'main',
      state: 'Starting',
      spec: { input: { steps: ['retention'] } },
    });
    await expect(start('m2')).rejects.toMatchObject({
      type: 'ALREADY_RUNNING',
      message: `session m1 of the maintenance of repository main is Starting since ${startedAt}`,
    });
    workflows.states.set('w-m1', { is: 'closed', how: 'terminated' });
    await start('m2');
    expect(await loadSession(db, 'm1')).toMatchObject({
      state: 'Stopped',
      result: 'Failed',
      error: { code: 'STOPPED' },
    });
    await expect(start('m3', { repositoryId: repositoryId('mian') })).rejects.toMatchObject({
      type: 'NOT_FOUND',
      message: 'there is no repository mian in the site',
      nonRetryable: true,
    });
  });

  it('sees who waits for its repository and goes before it', async () => {
    const wants = { vmId: null, hostId: null, proxies: null, excludedProxies: [], repositoryId: main, pairs: 1 };
    const ask = async (workflowId: string, order: number, repository = main) => {
      const request = { workflowId, requestNumber: 0, runKey: runKey('r'), order, manual: false, arrivedAt: 0 };
      await enqueueRequest(db, { ...request, wants: { ...wants, repositoryId: repository } });
    };
    await ask('own', requestOrders.backup);
    await ask('maintenance', requestOrders.maintenance);
    await ask('elsewhere', requestOrders.backup, repositoryId('other'));
    const waiting = () => activities.othersWait({ repositoryId: main, workflowId: 'own' });
    expect(await waiting()).toEqual({ waiting: 0 });
    await ask('backup', requestOrders.backup);
    await ask('restore', requestOrders.restore);
    expect(await waiting()).toEqual({ waiting: 2 });
    await db.updateTable('resource_requests').set({ state: 'granted' }).where('workflow_id', '=', 'backup').execute();
    expect(await waiting()).toEqual({ waiting: 1 });
  });

  it('plans retention in portions, each lineage once', async () => {
    for (let number = 0; number < 250; number += 1)
      await db
        .insertInto('restore_points')
        .columns([
          'restore_point_id',
          'repository_id',
          'lineage',
          'run_key',
          'job_id',
          'session_id',
          'vm_id',
          'vm_name',
        ])
        .columns(['host_id', 'nominal_time', 'taken_at', 'sealed_at', 'consistency', 'manifest_digest', 'manifest'])
        .values({
          restore_point_id: String(number),
          repository_id: 'main',
          lineage: `l${String(number % 125).padStart(3, '0')}`,
          run_key: 'r',
          job_id: 'nightly',
          session_id: 's',
          vm_id: `v${number % 125}`,
          vm_name: 'v',
          host_id: 'h1',
          nominal_time: new Date(),
          taken_at: new Date(),
          sealed_at: new Date(),
          consistency: 'crash',
          manifest_digest: '',
          manifest: '{}',
        })
        .execute();
    const seen: LineageId[] = [];
    let after: LineageId | null = null;
    const sizes: number[] = [];
    do {
      const plan: Awaited<ReturnType<typeof activities.planRetention>> = await activities.planRetention({
        repositoryId: main,
        after,
      });
      seen.push(...plan.lineages.map(({ lineage }) => lineage));
      sizes.push(plan.lineages.length);
      after = plan.next;
    } while (after !== null);
    expect(sizes).toEqual([100, 25]);
    expect(new Set(seen).size).toBe(125);
    expect(await activities.planRetention({ repositoryId: repositoryId('none'), after: null })).toEqual({
      lineages: [],
      next: null,
    });
  });
});

describe('what steps came to', () => {
  const decision = { stays: false, reasons: ['older than 14 days'], takenAt: startedAt, refusal: null };
  const retention = (gone: string, refused: string): LineageRetention => ({
    lineage: 'l' as LineageId,
    jobId: 'nightly' as never,
    vmId: 'a' as never,
    vmName: 'web',
    stays: 3,
    decisions: [
      {
        ...decision,
        restorePointId: restorePointId(gone),
        outcome: 'removed',
        trashedUntil: '2026-11-27T00:00:00.000Z',
        asOf: startedAt,
      },
      {
        ...decision,
        restorePointId: restorePointId(refused),
        outcome: 'refused',
        trashedUntil: null,
        asOf: null,
        refusal: {
          code: 'RESTORE_POINT_HELD',
          message: 'it is held: evidence',
        },
      },
    ],
  });

  it('retention: rows go to the trash, and each is told, by the night or after a session', async () => {
    const [gone, refused] = [
      await recordTestPoint(db, { vmName: 'web', disks: ['d0'] }),
      await recordTestPoint(db, { vmName: 'web', disks: ['d0'] }),
    ];
    await start('m1');
    const lineages = [retention(gone, refused)];
    const outcome: MaintenanceOutcome = { step: 'retention', dryRun: false, lineages };
    for (let time = 0; time < 2; time += 1) expect(await record(outcome)).toEqual({ alarms: [] });
    expect((await listRestorePoints(db)).map(({ restorePointId: id }) => id)).toEqual([refused]);
    expect(await listRestorePoints(db, { removed: true })).toMatchObject([
      { restorePointId: gone, trashedUntil: '2026-11-27T00:00:00.000Z' },
    ]);
    const told = (await listEvents(db, 'm1')).map(({ code, message }) => `${code}: ${message}`);
    expect(told).toEqual([
      `RESTORE_POINT_REMOVED: restore point ${gone.slice(0, 12)} of VM web, taken ${startedAt}, goes: older than 14 days, can be brought back until 2026-11-27T00:00:00.000Z`,
      `RESTORE_POINT_HELD: restore point ${refused.slice(0, 12)} of VM web, taken ${startedAt}, stays though no rule keeps it: it is held: evidence`,
    ]);
    expect(await listOutcomes(db, 'm1')).toEqual([outcome]);
    await activities.recordRetention({ sessionId: sessionId('s1'), lineages });
    expect(await listEvents(db, 's1')).toHaveLength(2);
  });

  it('retention, tried again after its answer was lost: rows go to the trash, and nothing is told twice', async () => {
    const gone = restorePointId(await recordTestPoint(db, { vmName: 'web', disks: ['d0'] }));
    const trashed = [{ restorePointId: gone, trashedUntil: '2026-11-27T00:00:00.000Z', asOf: startedAt }];
    const lineages = [{ ...retention(gone, gone), decisions: [], trashed }];
    await activities.recordRetention({ sessionId: session, lineages });
    expect(await listRestorePoints(db, { removed: true })).toMatchObject([
      { restorePointId: gone, removedAt: startedAt, trashedUntil: '2026-11-27T00:00:00.000Z' },
    ]);
    expect(await listEvents(db, 'm1')).toEqual([]);
  });

  it('of a dry run nothing changes', async () => {
    const point = await recordTestPoint(db, { vmName: 'web', disks: ['d0'] });
    const lineage = retention(point, point);
    const decisions = lineage.decisions.map((each) => ({ ...each, outcome: 'would-go' as const }));
    await record({ step: 'retention', dryRun: true, lineages: [{ ...lineage, decisions }] });
    expect(await listRestorePoints(db)).toHaveLength(1);
    expect(await listEvents(db, 'm1')).toEqual([]);
  });

  it('a check: marks in the catalog', async () => {
    const hit = restorePointId(await recordTestPoint(db, { vmName: 'web', disks: ['d0'] }));
    const why = { code: 'TORN', message: 'a record is torn' };
    const damage = { kind: 'record' as const, name: 'r at 5', pack: 'p', offset: 5, why, restorePoints: [hit] };
    const looked = { depth: 'full' as const, whole: true, restorePoints: 1, packs: 1, checkedBytes: 1, openPacks: 0 };
    const report = { ...looked, damages: [damage], marked: [hit], healed: [] };
    await record({ step: 'check', report, damageCount: 1 });
    expect(await listRestorePoints(db)).toMatchObject([{ damaged: true, markReason: 'a record is torn' }]);
    await record({ step: 'check', report: { ...report, damages: [], marked: [], healed: [hit] }, damageCount: 0 });
    expect(await listRestorePoints(db)).toMatchObject([{ damaged: false, markReason: null }]);
  });

  it('statistics: figures, and alarms by the thresholds of the site', async () => {
    const statistics = {
      restorePoints: 1,
      vms: 1,
      logicalBytes: 4,
      deduplicatedBytes: 2,
      storedBytes: 1,
      deadBytes: null,
      trashBytes: 0,
      freeBytes: 40,
      byVm: [],
    };
    const space = { freeBytes: 40, totalBytes: 1000, at: startedAt };
    expect(await record({ step: 'statistics', statistics, space })).toEqual({ alarms: [] });
    expect(await loadRepositoryFigures(db, 'main')).toEqual({ space, statistics, statisticsAt: startedAt });
    const [machine] = site.machines;
    const alarms = { freePercent: 5, daysUntilFull: 14 };
    const repositories = machine!.repositories.map((each) => ({ ...each, alarms }));
    await applySite(db, { ...site, machines: [{ ...machine!, repositories }] });
    const answer = await record({ step: 'statistics', statistics, space });
    expect(answer.alarms).toMatchObject([{ level: 'warning', code: 'REPOSITORY_FILLING' }]);
    // Its words are recorded once, with the others at the end.
    expect(await listEvents(db, 'm1')).toEqual([]);
    await activities.recordFindings({ sessionId: session, about: 'maintenance', findings: answer.alarms });
    expect(await listEvents(db, 'm1')).toMatchObject([{ level: 'warning', message: expect.stringContaining('4.0 %') }]);
  });

  it('import: what was packed at the repository is in the catalog, with its session', async () => {
    await recordTestPoint(db, { vmName: 'web', disks: ['d0'] });
    const row = await db.selectFrom('restore_points').selectAll().executeTakeFirstOrThrow();
    const manifest = JSON.parse(row.manifest) as never;
    await db.deleteFrom('restore_points').execute();
    const flags = { keep: true, hold: null, lockedUntil: null };
    const sealed = {
      restorePointId: restorePointId(row.restore_point_id),
      manifestDigest: 'd',
      manifest,
      mark: null,
      flags,
    };
    const repository = {
      survey: () => Promise.resolve({ sealed: [sealed], trashed: [], asOf: startedAt }),
      describeTrashed: () => Promise.resolve([]),
    };
    const page = {
      after: null,
      upTo: null,
      asOf: startedAt,
      signs: [{ ...sealed, state: 'good' as const, why: null }],
      trashed: [],
    };
    const { missing } = await activities.reconcileRestorePoints({ repositoryId: main, page });
    expect(missing).toEqual([sealed.restorePointId]);
    const packed = await packRestorePoints(repository, missing);
    expect(await activities.importRestorePoints(packed)).toEqual({ sessionsAdded: 1 });
    expect(await activities.importRestorePoints(packed)).toEqual({ sessionsAdded: 0 });
    expect(await listRestorePoints(db)).toMatchObject([{ vmName: 'web', keep: true }]);
    expect(await loadSession(db, 's1')).toMatchObject({ startedBy: 'import', vms: [{ name: 'web' }] });
    await activities.recordRestorePointChange({
      removed: true,
      restorePointId: sealed.restorePointId,
      trashedUntil: null,
      asOf: startedAt,
    });
    expect(await listRestorePoints(db)).toEqual([]);
    await activities.recordRestorePointChange({ removed: false, asOf: startedAt, ...sealed });
    expect(await listRestorePoints(db)).toHaveLength(1);
  });
});
