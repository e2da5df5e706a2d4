import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { decide } from '../../engines/scheduler/decide.ts';
import { startTestDatabase } from '../../tests/fixtures/mariadb.ts';
import type { TestDatabaseServer } from '../../tests/fixtures/mariadb.ts';
import { hostId, machineId, proxyId, repositoryId, runKeyOf, siteId, vmId } from '../domain/ids.ts';
import type { ResourceRequest } from '../domain/scheduling.ts';
import { connectCatalog } from './connection.ts';
import type { CatalogConnection, CatalogDatabase } from './connection.ts';
import {
  confirmLeases,
  enqueueRequest,
  grantPass,
  listLeases,
  listRequests,
  releaseLeases,
  takeGrant,
} from './leases.ts';
import { migrateCatalog } from './migrate.ts';
import { applySite } from './site.ts';

let server: TestDatabaseServer;
let connection: CatalogConnection;
let db: CatalogDatabase;
beforeAll(async () => {
  server = await startTestDatabase();
  connection = server.freshDatabase();
  await migrateCatalog(connection);
  db = connectCatalog(connection);
  const site = siteId('lab');
  await applySite(db, {
    site,
    machines: [
      {
        site,
        machineId: machineId('m1'),
        hosts: [{ hostId: hostId('h1'), slots: 5, provider: 'simulated', vms: [] }],
        proxies: [{ proxyId: proxyId('p1'), slots: 4, lanes: 1, restoreFolders: [] }],
        repositories: [{ repositoryId: repositoryId('main'), folder: '/b', slots: 3, lanes: 1 }],
      },
    ],
    jobs: [],
  });
});
afterAll(async () => {
  await db?.destroy();
  await server?.close();
});
beforeEach(async () => {
  await db.deleteFrom('leases').execute();
  await db.deleteFrom('resource_requests').execute();
});

const request = (workflowId: string, vm = workflowId, pairs = 1, arrivedAt = 0): ResourceRequest => ({
  workflowId,
  requestNumber: 0,
  runKey: runKeyOf(workflowId),
  order: 300,
  manual: false,
  arrivedAt,
  wants: {
    vmId: vmId(vm),
    hostId: hostId('h1'),
    proxies: [],
    excludedProxies: [],
    repositoryId: repositoryId('main'),
    pairs,
  },
});
const pass = (on: CatalogDatabase = db) => grantPass(on, decide, 1000);

it('grants, confirms and gives back; each verb may be repeated', async () => {
  expect(await takeGrant(db, 'w1')).toEqual({ state: 'unknown' });
  await enqueueRequest(db, request('w1', 'v', 2));
  await enqueueRequest(db, request('w1', 'v', 2));
  expect(await takeGrant(db, 'w1')).toMatchObject({ state: 'waiting', reason: { code: 'new' } });
  expect((await pass()).grants.length).toBe(1);
  expect((await pass()).grants.length).toBe(0);
  await enqueueRequest(db, request('w1', 'v', 2));
  const taken = await takeGrant(db, 'w1');
  if (taken.state !== 'granted') throw new Error(`w1 is ${taken.state}`);
  expect(taken.leases.map((lease) => `${lease.kind} ${lease.id} ${lease.pair}`)).toEqual([
    'vm v null',
    'host h1 null',
    'proxy p1 0',
    'repository main 0',
    'proxy p1 1',
    'repository main 1',
  ]);
  expect(taken.reason.code).toBe('on-host');
  expect(await confirmLeases(db, 'w1')).toEqual(taken.leases);
  const pair = taken.leases.filter((lease) => lease.pair === 1).map((lease) => lease.leaseId);
  expect(await releaseLeases(db, 'w1', pair)).toBe(2);
  expect(await releaseLeases(db, 'w1', pair)).toBe(0);
  await expect(confirmLeases(db, 'w1', pair)).rejects.toMatchObject({ code: 'LEASE_LOST' });
  expect(await releaseLeases(db, 'w1')).toBe(4);
  expect(await releaseLeases(db, 'w1')).toBe(0);
  await expect(confirmLeases(db, 'w1')).rejects.toMatchObject({ code: 'LEASE_LOST' });
  expect(await takeGrant(db, 'w1')).toEqual({ state: 'unknown' });
});

it('stores why a request waits, and grants it when room is made', async () => {
  await enqueueRequest(db, request('w1', 'v'));
  await enqueueRequest(db, request('w2', 'v', 1, 5));
  await pass();
  expect(await takeGrant(db, 'w2')).toMatchObject({
    state: 'waiting',
    position: 1,
    reason: { code: 'vm-locked', message: 'position 1: VM v is in another session' },
  });
  await releaseLeases(db, 'w1');
  await pass();
  expect((await takeGrant(db, 'w2')).state).toBe('granted');
});

it('asks for a further pair under the next number', async () => {
  await enqueueRequest(db, request('w1', 'v'));
  const first = request('w1', 'v');
  await enqueueRequest(db, { ...first, requestNumber: 1, wants: { ...first.wants, vmId: null, hostId: null } });
  await pass();
  const more = await takeGrant(db, 'w1', 1);
  expect(more).toMatchObject({ state: 'granted', leases: [{ kind: 'proxy' }, { kind: 'repository' }] });
  expect((await confirmLeases(db, 'w1')).length).toBe(6);
});

it('refuses a second lock of a VM even when a scheduler grants it', async () => {
  await enqueueRequest(db, request('w1', 'v'));
  await enqueueRequest(db, request('w2', 'v'));
  const careless: typeof decide = ({ requests }) => ({
    grants: requests.map((each) => ({
      workflowId: each.workflowId,
      requestNumber: 0,
      leases: [{ kind: 'vm', id: 'v', pair: null }],
      reason: { code: 'x', message: 'x' },
    })),
    reasons: [],
  });
  await expect(grantPass(db, careless, 0)).rejects.toThrow(/duplicate/i);
  expect(await listLeases(db)).toEqual([]);
  expect((await listRequests(db)).map((each) => each.state)).toEqual(['waiting', 'waiting']);
});

it('never grants more than there is, with four schedulers at once', { timeout: 60_000 }, async () => {
  const schedulers = [1, 2, 3, 4].map(() => connectCatalog(connection, 2));
  const limits: Record<string, number> = { 'host h1': 5, 'proxy p1': 4, 'repository main': 3 };
  const over: string[] = [];
  const done = new Set<string>();
  const names = Array.from({ length: 32 }, (_, n) => `w${n}`);
  // Several of them want the same VM, and all more pairs than there are.
  for (const [n, name] of names.entries()) await enqueueRequest(db, request(name, `v${n % 10}`, 1 + (n % 3), n));

  async function watch(on: CatalogDatabase): Promise<void> {
    const used = new Map<string, number>();
    for (const lease of await listLeases(on)) {
      const key = `${lease.kind} ${lease.id}`;
      used.set(key, (used.get(key) ?? 0) + 1);
    }
    for (const [key, count] of used) if (count > (limits[key] ?? 1)) over.push(`${key}: ${count}`);
  }
  async function work(on: CatalogDatabase): Promise<void> {
    for (let round = 0; done.size < names.length && round < 500; round += 1) {
      await pass(on);
      await watch(on);
      const owner = (await listLeases(on))[0]?.workflowId;
      if (owner === undefined) continue;
      await releaseLeases(on, owner);
      done.add(owner);
    }
  }
  await Promise.all(schedulers.map(work));
  await Promise.all(schedulers.map((each) => each.destroy()));
  expect(over).toEqual([]);
  expect(done.size).toBe(names.length);
  expect(await listRequests(db)).toEqual([]);
});
