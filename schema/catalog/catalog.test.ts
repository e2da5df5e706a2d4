import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestDatabase } from '../../tests/fixtures/mariadb.ts';
import type { TestDatabaseServer } from '../../tests/fixtures/mariadb.ts';
import type { SiteConfig } from '../domain/configuration.ts';
import { diskKey, hostId, jobId, machineId, proxyId, repositoryId, siteId, vmId } from '../domain/ids.ts';
import type { Conservation, SealOutcome } from '../domain/restore-point.ts';
import { connectCatalog } from './connection.ts';
import type { CatalogConnection, CatalogDatabase } from './connection.ts';
import { listEvents, recordEvents } from './events.ts';
import { listJobs, loadJob } from './jobs.ts';
import { migrateCatalog } from './migrate.ts';
import { migrations } from './migrations/index.ts';
import { listResources, loadInventory, loadResourceStates, setDrained, storeInventory } from './resources.ts';
import { listRestorePoints, loadRestorePoint, recordRestorePoint } from './restore-points.ts';
import {
  createSession,
  listSessions,
  loadSession,
  planSessionVms,
  updateSession,
  updateSessionDisk,
  updateSessionVm,
} from './sessions.ts';
import { applySite, loadSite } from './site.ts';

let server: TestDatabaseServer;
beforeAll(async () => {
  server = await startTestDatabase();
});
afterAll(async () => server.close());

async function withCatalog<T>(work: (db: CatalogDatabase, at: CatalogConnection) => Promise<T>): Promise<T> {
  const connection = server.freshDatabase();
  await migrateCatalog(connection);
  const db = connectCatalog(connection);
  try {
    return await work(db, connection);
  } finally {
    await db.destroy();
  }
}

async function columnsOf(connection: CatalogConnection): Promise<string[]> {
  const db = connectCatalog(connection);
  const tables = await db.introspection.getTables();
  await db.destroy();
  return tables
    .flatMap((table) => table.columns.map((column) => `${table.name}.${column.name} ${column.dataType}`))
    .sort((a, b) => (a < b ? -1 : 1));
}

describe('migrations', () => {
  it('are one statement each, in order, without ENUM', () => {
    expect(migrations.map((each) => each.name)).toEqual(migrations.map((each) => each.name).toSorted());
    for (const [index, each] of migrations.entries()) {
      expect(each.name.startsWith(String(index + 1).padStart(4, '0'))).toBe(true);
      expect(each.statement).not.toMatch(/;|\benum\b/i);
    }
  });

  it('lead from every earlier version to the same tables', { timeout: 60_000 }, async () => {
    const whole = server.freshDatabase();
    expect((await migrateCatalog(whole)).applied).toEqual(migrations.map((each) => each.name));
    const expected = await columnsOf(whole);
    // One catalog through all versions: what is missing is applied one after another, wherever it begins.
    const connection = server.freshDatabase();
    for (let version = 1; version <= migrations.length; version += 1)
      expect((await migrateCatalog(connection, version)).applied).toEqual([migrations[version - 1]!.name]);
    expect(await columnsOf(connection)).toEqual(expected);
    const half = server.freshDatabase();
    await migrateCatalog(half, 7);
    expect((await migrateCatalog(half)).applied).toEqual(migrations.slice(7).map((each) => each.name));
  });

  it('do nothing twice, and are applied once by processes that start together', async () => {
    const connection = server.freshDatabase();
    const all = await Promise.all([1, 2, 3].map(() => migrateCatalog(connection)));
    expect(all.flatMap((each) => each.applied).length).toBe(migrations.length);
    expect(await migrateCatalog(connection)).toEqual({ applied: [] });
  });

  it('say which one failed', async () => {
    const connection = server.freshDatabase();
    await migrateCatalog(connection, 4);
    const db = connectCatalog(connection);
    await db.schema.createTable('jobs').addColumn('job_id', 'integer').execute();
    await db.destroy();
    await expect(migrateCatalog(connection)).rejects.toMatchObject({
      code: 'DATABASE_ERROR',
      message: expect.stringContaining('0005-create-jobs'),
    });
    await expect(migrateCatalog({ ...connection, database: 'a;b' })).rejects.toMatchObject({ code: 'DATABASE_ERROR' });
  });
});

const site = (): SiteConfig => ({
  site: siteId('lab'),
  machines: [
    {
      site: siteId('lab'),
      machineId: machineId('m1'),
      hosts: [
        {
          hostId: hostId('h1'),
          slots: 4,
          provider: 'simulated',
          vms: [{ name: 'web', vmId: vmId('v1'), disks: [{ diskKey: diskKey('d0'), sizeBytes: 4096, seed: 1 }] }],
        },
      ],
      proxies: [{ proxyId: proxyId('p1'), slots: 3, lanes: 2, restoreFolders: ['/restores'] }],
      repositories: [{ repositoryId: repositoryId('main'), folder: '/backups', slots: 2, lanes: 2 }],
      networks: { timeZone: 'UTC', preferred: ['10.0.0.0/8'], throttle: [] },
      workers: { proxy: { memoryBytes: null, cpus: 2, nice: 10 } },
    },
  ],
  jobs: [
    {
      jobId: jobId('daily'),
      vms: [{ hostId: hostId('h1'), name: 'web', vmId: vmId('v1'), excludeDisks: [] }],
      repositoryId: repositoryId('main'),
      proxies: [],
      consistency: 'prefer',
      scripts: { preFreeze: null, postThaw: null, success: null },
      compression: 'balanced',
      blockSize: 1048576,
      maxParallelVms: 4,
      hostWaitMs: 900_000,
    },
  ],
});

describe('site', () => {
  it('comes back as applied, and a second apply changes nothing', async () => {
    await withCatalog(async (db) => {
      expect(await loadSite(db)).toBeNull();
      const changes = await applySite(db, site());
      expect(changes.map((each) => `${each.change} ${each.kind} ${each.id}`)).toEqual([
        'added machine m1',
        'added host h1',
        'added vm h1/web',
        'added proxy p1',
        'added repository main',
        'added job daily',
      ]);
      expect(await loadSite(db)).toEqual(site());
      expect(await applySite(db, site())).toEqual([]);
      expect(await loadJob(db, 'daily')).toEqual(site().jobs[0]);
    });
  });

  it("a job's retention comes and goes with the site", async () => {
    await withCatalog(async (db) => {
      await applySite(db, site());
      const changed = [{ kind: 'job', id: 'daily', change: 'changed' }];
      const kept = site();
      const rules = { count: 7, days: null, weekly: null, monthly: { keep: 12 }, yearly: null };
      kept.jobs[0]!.retention = { ...rules, minimum: 3, deletedVmDays: null, timeZone: 'Europe/Berlin' };
      expect(await applySite(db, kept)).toEqual(changed);
      expect(await loadJob(db, 'daily')).toEqual(kept.jobs[0]);
      expect(await applySite(db, site())).toEqual(changed);
      expect(await loadJob(db, 'daily')).not.toHaveProperty('retention');
    });
  });

  it('marks what is gone as removed, keeps what was drained, and takes a job up again', async () => {
    await withCatalog(async (db) => {
      await applySite(db, site());
      await setDrained(db, 'repository', 'main', true);
      const less = site();
      less.jobs = [];
      less.machines[0]!.proxies = [];
      expect(await applySite(db, less)).toEqual([
        { kind: 'proxy', id: 'p1', change: 'removed' },
        { kind: 'job', id: 'daily', change: 'removed' },
      ]);
      await expect(loadJob(db, 'daily')).rejects.toMatchObject({ code: 'JOB_NOT_FOUND' });
      await expect(loadJob(db, 'never')).rejects.toMatchObject({ code: 'JOB_NOT_FOUND' });
      expect((await listResources(db, 'proxy'))[0]).toMatchObject({ id: 'p1', state: 'removed' });
      const limits = (await loadResourceStates(db)).map((each) => `${each.kind} ${each.id} ${each.limit}`);
      expect(limits).toEqual(['host h1 4', 'proxy p1 0', 'repository main 0']);
      await applySite(db, site());
      expect((await loadJob(db, 'daily')).jobId).toBe('daily');
      expect((await listResources(db, 'proxy'))[0]).toMatchObject({ state: 'active', slots: 3 });
    });
  });

  it('keeps the inventory with its age over an apply', async () => {
    await withCatalog(async (db) => {
      await applySite(db, site());
      expect((await loadInventory(db, 'h1'))[0]).toMatchObject({ vmId: 'v1', inspectedAt: null, summary: null });
      const at = '2026-03-29T01:30:00.123Z';
      const vm = { vmId: vmId('v1'), hostId: hostId('h1') };
      const disks = [{ diskKey: diskKey('d0'), sizeBytes: 3 * 2 ** 40 }];
      await storeInventory(db, [{ vm, name: 'web', power: 'on', disks }], new Date(at));
      await applySite(db, site());
      expect((await loadInventory(db))[0]).toMatchObject({ inspectedAt: at, summary: { vm, power: 'on', disks } });
      await storeInventory(db, [{ vm, name: 'web', power: 'off', disks: null }], new Date('2026-03-30T01:30:00.123Z'));
      expect((await loadInventory(db))[0]).toMatchObject({ inspectedAt: at, summary: { vm, power: 'off', disks } });
    });
  });

  it('of a VM that was never looked at, knows nothing', async () => {
    await withCatalog(async (db) => {
      await applySite(db, site());
      const vm = { vmId: vmId('v1'), hostId: hostId('h1') };
      await storeInventory(db, [{ vm, name: 'web', power: 'on', disks: null }], new Date());
      expect((await loadInventory(db, 'h1'))[0]).toMatchObject({ inspectedAt: null, summary: null });
    });
  });
});

const conservation: Conservation = {
  sizeBytes: 100,
  unallocatedBytes: 10,
  zeroBytes: 20,
  filteredBytes: 0,
  unchangedBytes: 30,
  deduplicatedBytes: 15,
  storedBytes: 25,
};
const stages = { source: 9, proxy: 8, throttling: 0, network: 7, target: 6 };
const startedAt = '2026-10-25T00:59:59.999Z';
const open = { sessionId: 's1', kind: 'backup', jobId: 'daily', workflowId: 'w1', startedBy: 'manual' } as const;

describe('sessions', () => {
  it('are told step by step, each write repeatable', async () => {
    await withCatalog(async (db) => {
      for (let time = 0; time < 2; time += 1) {
        await createSession(db, { ...open, nominalTime: startedAt, startedAt });
        await planSessionVms(db, 's1', [
          { vmId: 'v2', name: 'b', hostId: 'h1' },
          { vmId: 'v1', name: 'a', hostId: 'h1' },
        ]);
        await updateSessionVm(db, 's1', 'v2', { step: 'transferring', attempt: 1, startedAt, waitsFor: 'x' });
        await updateSessionVm(db, 's1', 'v2', { waitsFor: null, consistency: 'filesystem' });
        const reason = { code: 'first', message: 'first restore point' };
        await updateSessionDisk(db, 's1', 'v2', 'd0', { mode: 'full', reason, sizeBytes: 5 * 2 ** 40 });
        await updateSessionDisk(db, 's1', 'v2', 'd0', { readBytes: 7, conservation, stages });
        await updateSessionDisk(db, 's1', 'v2', 'd0', {});
        await updateSession(db, 's1', { state: 'Stopped', result: 'Failed', endedAt: startedAt });
        await updateSession(db, 's1', { state: 'Stopping' });
        await updateSession(db, 's1', { error: { code: 'STOPPED', message: 'stopped', hint: 'Run it again.' } });
      }
      const session = await loadSession(db, 's1');
      expect(session).toMatchObject({ ...open, state: 'Stopped', result: 'Failed', startedAt, endedAt: startedAt });
      expect(session?.error).toEqual({ code: 'STOPPED', message: 'stopped', hint: 'Run it again.' });
      expect(session?.vms.map((vm) => vm.vmId)).toEqual(['v2', 'v1']);
      expect(session?.vms[0]).toMatchObject({ step: 'transferring', waitsFor: null, consistency: 'filesystem' });
      expect(session?.vms[0]?.disks[0]).toMatchObject({
        sizeBytes: 5 * 2 ** 40,
        readBytes: 7,
        mode: 'full',
        conservation,
        stages,
      });
      await expect(updateSessionVm(db, 's1', 'v9', { step: 'done' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
      // The same values again change no row, and are not "not found".
      await updateSessionVm(db, 's1', 'v2', { step: 'transferring' });
      expect(await loadSession(db, 's9')).toBeNull();
      expect(await listSessions(db, { open: true })).toEqual([]);
      expect(await listSessions(db, { idPrefix: 's' })).toHaveLength(1);
      expect(await listSessions(db, { idPrefix: '_1' })).toEqual([]);
      expect(await listSessions(db, { idPrefix: '\\' })).toEqual([]);
      expect((await listJobs(db)).length).toBe(0);
    });
  });

  it('record each event once', async () => {
    await withCatalog(async (db) => {
      const event = { sessionId: 's1', at: startedAt, level: 'info', code: 'step', message: 'ünïcode ✓ 🦭' } as const;
      await recordEvents(db, [{ ...event, eventKey: 'a' }]);
      await recordEvents(db, [
        { ...event, eventKey: 'a' },
        { ...event, eventKey: 'b', vmId: 'v1', diskKey: 'd0' },
      ]);
      const events = await listEvents(db, 's1');
      expect(events.map((each) => each.eventKey)).toEqual(['a', 'b']);
      expect(events[1]).toMatchObject({ ...event, vmId: 'v1', diskKey: 'd0' });
      const many = Array.from({ length: 1500 }, (_, i) => ({ ...event, sessionId: 's2', eventKey: `${i}` }));
      await recordEvents(db, many);
      expect((await listEvents(db, 's2')).map(({ eventKey }) => eventKey)).toEqual(many.map((each) => each.eventKey));
    });
  });
});

describe('restore points', () => {
  it('come back with their manifest; recorded twice they are one', async () => {
    await withCatalog(async (db) => {
      const sealed = sealedPoint();
      await recordRestorePoint(db, sealed);
      await recordRestorePoint(db, sealed);
      expect(await loadRestorePoint(db, 'f'.repeat(32))).toEqual(sealed);
      expect(await listRestorePoints(db, { vmName: 'web' })).toMatchObject([{ sizeBytes: 100, storedBytes: 25 }]);
      // Said of it since, it stays as it is.
      await recordRestorePoint(db, { ...sealed, lockedUntil: startedAt });
      expect(await listRestorePoints(db, { vmName: 'web' })).toMatchObject([{ lockedUntil: null }]);
      await db.deleteFrom('restore_points').execute();
      await recordRestorePoint(db, { ...sealed, lockedUntil: startedAt });
      expect(await listRestorePoints(db, { vmName: 'web' })).toMatchObject([{ lockedUntil: startedAt }]);
      expect(await listRestorePoints(db, { jobId: 'other' })).toEqual([]);
      expect(await listRestorePoints(db, { idPrefix: 'ffff' })).toHaveLength(1);
      expect(await listRestorePoints(db, { idPrefix: 'f_%' })).toEqual([]);
      expect(await loadRestorePoint(db, '0'.repeat(32))).toBeNull();
    });
  });
});

function sealedPoint(): SealOutcome {
  const manifest = {
    format: 1,
    repository: 'main',
    restorePointId: 'f'.repeat(32),
    run: 'abcdefghijkl',
    lineage: '0123456789abcdef',
    vm: { vmId: 'v1', hostId: 'h1', name: 'web' },
    jobId: 'daily',
    sessionId: 's1',
    nominalTime: startedAt,
    takenAt: startedAt,
    sealedAt: startedAt,
    baseRestorePointId: null,
    consistency: { asked: 'prefer', reached: 'crash', frozenMs: null },
    suspect: false,
    disks: [{ diskKey: 'd0', sizeBytes: 100, readBytes: 60, sentBytes: 30, conservation }],
  } as unknown as SealOutcome['manifest'];
  return { restorePointId: manifest.restorePointId, manifestDigest: 'e'.repeat(64), manifest };
}
