import { setTimeout as sleep } from 'node:timers/promises';
import { CancelledFailure } from '@temporalio/common';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { decide } from '../../engines/scheduler/decide.ts';
import { connectCatalog, type CatalogConnection, type CatalogDatabase } from '../../schema/catalog/connection.ts';
import { enqueueRequest, grantPass, listLeases, listRequests, releaseLeases } from '../../schema/catalog/leases.ts';
import { migrateCatalog } from '../../schema/catalog/migrate.ts';
import { setReachable } from '../../schema/catalog/resources.ts';
import { applySite } from '../../schema/catalog/site.ts';
import type { SiteConfig } from '../../schema/domain/configuration.ts';
import { hostId, machineId, proxyId, repositoryId, runKeyOf, siteId, vmId } from '../../schema/domain/ids.ts';
import { requestOrders, type HeldLease, type ResourceRequest } from '../../schema/domain/scheduling.ts';
import type { WaitHeartbeat } from '../../schema/domain/sessions.ts';
import { runActivity } from '../../tests/fixtures/activity.ts';
import { startTestDatabase, type TestDatabaseServer } from '../../tests/fixtures/mariadb.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { createGrantLoop, createResourceActivities, type ResourceActivities } from './resource-activities.ts';

const site = siteId('lab');
const siteWith = (proxies: string[], host = 'h1'): SiteConfig => ({
  site,
  machines: [
    {
      site,
      machineId: machineId('m1'),
      hosts: [{ hostId: hostId(host), slots: 8, provider: 'simulated', vms: [] }],
      proxies: proxies.map((id) => ({ proxyId: proxyId(id), slots: 2, lanes: 1, restoreFolders: [] })),
      repositories: [{ repositoryId: repositoryId('main'), folder: '/b', slots: 4, lanes: 1 }],
    },
  ],
  jobs: [],
});

let server: TestDatabaseServer;
let connection: CatalogConnection;
let db: CatalogDatabase;
beforeAll(async () => {
  server = await startTestDatabase();
  connection = server.freshDatabase();
  await migrateCatalog(connection);
  db = connectCatalog(connection);
});
afterAll(async () => {
  await db?.destroy();
  await server?.close();
});
beforeEach(async () => {
  await db.deleteFrom('leases').execute();
  await db.deleteFrom('resource_requests').execute();
  await applySite(db, siteWith(['p1']));
  await setReachable(db, 'proxy', 'p1', true, new Date());
});

const { clock, log } = testSeams();
/** The activities of one control process. */
function control(of: { holdMs?: number; db?: CatalogDatabase } = {}): ResourceActivities {
  const queues = { silentMs: async (queue: string) => (queue === 'proxy.p1' ? 1234 : null) };
  const dependencies = { db, queues, clock, log, ...of };
  return createResourceActivities(dependencies, createGrantLoop(dependencies));
}

const request = (workflowId: string, change: Partial<ResourceRequest['wants']> = {}): ResourceRequest => ({
  workflowId,
  requestNumber: 0,
  runKey: runKeyOf(workflowId),
  order: requestOrders.backup,
  manual: false,
  arrivedAt: 1000,
  wants: {
    vmId: vmId(workflowId),
    hostId: hostId('h1'),
    proxies: [],
    excludedProxies: [],
    repositoryId: repositoryId('main'),
    pairs: 1,
    ...change,
  },
});

const attempt = (activities: ResourceActivities, of: ResourceRequest) =>
  runActivity<ResourceRequest, HeldLease[], WaitHeartbeat>((input) => activities.acquireResources(input), of);
async function untilWaiting({ beats }: { beats: WaitHeartbeat[] }, of: RegExp): Promise<void> {
  while (!beats.some(({ reason }) => of.test(reason.message))) await sleep(5);
}
/** p1 has two slots: both are taken. */
async function fill(activities: ResourceActivities): Promise<void> {
  for (const name of ['full-1', 'full-2']) await attempt(activities, request(name)).result;
}

it('grants at once what is free, and the same again', async () => {
  const activities = control();
  const leases = await attempt(activities, request('w1')).result;
  expect(leases.map(({ kind, id }) => `${kind} ${id}`)).toEqual(['vm w1', 'host h1', 'proxy p1', 'repository main']);
  expect(await attempt(control(), request('w1')).result).toEqual(leases);
  const of = { workflowId: 'w1', leaseIds: leases.map(({ leaseId }) => leaseId) };
  await activities.confirmLeases(of);
  await activities.releaseResources({ workflowId: 'w1', leaseIds: [leases[3]!.leaseId] });
  await expect(activities.confirmLeases(of)).rejects.toMatchObject({ type: 'LEASE_LOST', nonRetryable: false });
  await activities.releaseResources({ workflowId: 'w1', leaseIds: null });
  await activities.releaseResources({ workflowId: 'w1', leaseIds: null });
  expect(await listLeases(db)).toEqual([]);
});

it('waits with its reason in the heartbeat, and goes on when another gives back', async () => {
  const activities = control();
  await fill(activities);
  const waiter = attempt(activities, request('w3'));
  await untilWaiting(waiter, /proxy p1 has 2 of 2 tasks/);
  expect(waiter.beats.at(-1)).toMatchObject({ position: 1, reason: { code: 'no-slot' } });
  await activities.releaseResources({ workflowId: 'full-1', leaseIds: null });
  expect((await waiter.result).map(({ kind }) => kind)).toEqual(['vm', 'host', 'proxy', 'repository']);
});

it('fails benign after its hold; the next attempt finds what was granted meanwhile', async () => {
  // Long enough for a pass on a busy machine, which says the reason.
  const activities = control({ holdMs: 3000 });
  await fill(control());
  await expect(attempt(activities, request('w3')).result).rejects.toMatchObject({
    type: 'NO_CAPACITY',
    message: 'position 1: proxy p1 has 2 of 2 tasks',
    nonRetryable: false,
    category: 'BENIGN',
  });
  expect((await listRequests(db)).find(({ workflowId }) => workflowId === 'w3')?.state).toBe('waiting');
  await releaseLeases(db, 'full-2');
  // Between two attempts nobody of w3 is there; a pass made for others grants it.
  await grantPass(db, decide, 2000);
  const granted = await listLeases(db, 'w3');
  expect(granted).toHaveLength(4);
  // Of a proxy, with the machine that it is on.
  const told = granted.map((lease) => (lease.kind === 'proxy' ? { ...lease, machineId: 'm1' } : lease));
  expect(await attempt(control(), request('w3')).result).toEqual(told);
});

it('says that a proxy does not answer', async () => {
  await setReachable(db, 'proxy', 'p1', false, new Date());
  const activities = control();
  const waiter = attempt(activities, request('w1'));
  await untilWaiting(waiter, /proxy p1 does not answer/);
  await setReachable(db, 'proxy', 'p1', true, new Date());
  expect(await waiter.result).toHaveLength(4);
});

it.each([
  ['host', request('w1', { hostId: hostId('h9') }), 'host h9 is not in the site'],
  ['repository', request('w1', { repositoryId: repositoryId('r9') }), 'repository r9 is not in the site'],
  ['proxy', request('w1', { proxies: [proxyId('p8'), proxyId('p9')] }), 'of the proxies p8, p9 none is in the site'],
])('fails for a %s that is not in the site, and leaves the line', async (_what, of, message) => {
  await enqueueRequest(db, of);
  await expect(attempt(control(), of).result).rejects.toMatchObject({
    type: 'RESOURCE_REMOVED',
    message,
    nonRetryable: true,
  });
  expect(await listRequests(db)).toEqual([]);
});

/** h1 is read on its own machine m1, where p1 is; p2 is on m2. */
const twoMachines = (): SiteConfig => {
  const whole = siteWith(['p1']);
  const here = {
    ...whole.machines[0]!,
    hosts: [{ hostId: hostId('h1'), slots: 8, provider: 'image' as const, vms: [] }],
  };
  const there = { ...siteWith(['p2']).machines[0]!, machineId: machineId('m2'), hosts: [], repositories: [] };
  return { ...whole, machines: [here, there] };
};

it('grants a host none but proxies that can read it, and refuses what none of them ever could', async () => {
  await applySite(db, twoMachines());
  await setReachable(db, 'proxy', 'p2', true, new Date());
  const granted = await attempt(control(), request('w1', { pairs: 4 })).result;
  expect(granted.filter(({ kind }) => kind === 'proxy')).toMatchObject([
    { id: 'p1', machineId: 'm1' },
    { id: 'p1', machineId: 'm1' },
  ]);
  await expect(attempt(control(), request('w2', { proxies: [proxyId('p2')] })).result).rejects.toMatchObject({
    type: 'RESOURCE_REMOVED',
    message: 'host h1 is read on its own machine m1 only, and of the proxies p2 none is there',
  });
  const further = { vmId: null, hostId: null, nearHostId: hostId('h1'), excludedProxies: [proxyId('p1')] };
  await expect(attempt(control(), request('w3', further)).result).rejects.toMatchObject({
    type: 'RESOURCE_REMOVED',
    message: 'of the proxies of the site that can serve each was excluded',
  });
  expect((await listRequests(db)).map(({ workflowId }) => workflowId)).toEqual(['w1']);
});

it('notices on its next attempt that a site was applied without its host', async () => {
  await fill(control());
  const activities = control({ holdMs: 50 });
  const of = request('w3');
  await expect(attempt(activities, of).result).rejects.toMatchObject({ type: 'NO_CAPACITY' });
  await applySite(db, siteWith(['p1'], 'h2'));
  await expect(attempt(activities, of).result).rejects.toMatchObject({ type: 'RESOURCE_REMOVED' });
});

it('a cancelled waiter leaves the line', async () => {
  const activities = control();
  await fill(activities);
  const waiter = attempt(activities, request('w3'));
  await untilWaiting(waiter, /2 of 2 tasks/);
  waiter.cancel();
  await expect(waiter.result).rejects.toBeInstanceOf(CancelledFailure);
  expect((await listRequests(db)).map(({ workflowId }) => workflowId)).toEqual(['full-1', 'full-2']);
});

it('a waiter whose worker is shut down stays in line, and the next attempt goes on there', async () => {
  const activities = control();
  await fill(activities);
  const waiter = attempt(activities, request('w3'));
  await untilWaiting(waiter, /2 of 2 tasks/);
  waiter.shutDown();
  await expect(waiter.result).rejects.toBeInstanceOf(CancelledFailure);
  const next = control();
  const again = attempt(next, request('w3'));
  await untilWaiting(again, /position 1: proxy p1/);
  await next.releaseResources({ workflowId: 'full-1', leaseIds: null });
  expect(await again.result).toHaveLength(4);
});

it('the release of a cancelled workflow takes its waiting requests too', async () => {
  const activities = control();
  await fill(activities);
  const further = { ...request('full-1', { vmId: null, hostId: null, nearHostId: hostId('h1') }), requestNumber: 1 };
  const waiter = attempt(activities, further);
  await untilWaiting(waiter, /2 of 2 tasks/);
  await activities.releaseResources({ workflowId: 'full-1', leaseIds: null });
  await expect(waiter.result).rejects.toMatchObject({ type: 'LEASE_LOST' });
  expect((await listRequests(db)).map(({ workflowId }) => workflowId)).toEqual(['full-2']);
});

it('tells how long a queue was silent', async () => {
  expect(await control().probeQueue({ queue: 'proxy.p1' })).toEqual({ silentMs: 1234 });
  expect(await control().probeQueue({ queue: 'proxy.p2' })).toEqual({ silentMs: null });
});

it('waits in words while the catalog is away, then fails as something to try again', async () => {
  const nowhere = connectCatalog({ ...connection, socket: '/nonexistent/db.sock' });
  const activities = control({ db: nowhere });
  await expect(attempt(activities, request('w1')).result).rejects.toMatchObject({
    type: 'DATABASE_ERROR',
    nonRetryable: false,
  });
  await nowhere.destroy();
});

it('two control processes and forty waiters: never more than there is, all of them served', async () => {
  const processes = [control(), control({ db: connectCatalog(connection, 4) })];
  await applySite(db, siteWith(['p1', 'p2']));
  const limits: Record<string, number> = { 'host h1': 8, 'proxy p1': 2, 'proxy p2': 2, 'repository main': 4 };
  const over: string[] = [];
  let served = 0;
  const work = async (n: number): Promise<void> => {
    const activities = processes[n % 2]!;
    const name = `w${n}`;
    await attempt(activities, request(name, { vmId: vmId(`v${n % 25}`), pairs: 1 + (n % 2) })).result;
    const used = new Map<string, number>();
    for (const { kind, id } of await listLeases(db)) used.set(`${kind} ${id}`, (used.get(`${kind} ${id}`) ?? 0) + 1);
    for (const [key, count] of used) if (count > (limits[key] ?? 1)) over.push(`${key}: ${count}`);
    served += 1;
    await activities.releaseResources({ workflowId: name, leaseIds: null });
  };
  await Promise.all(Array.from({ length: 40 }, (_, n) => work(n)));
  expect(over).toEqual([]);
  expect(served).toBe(40);
  expect(await listRequests(db)).toEqual([]);
});
