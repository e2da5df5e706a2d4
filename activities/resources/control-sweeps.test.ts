import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listEvents } from '../../schema/catalog/events.ts';
import { enqueueRequest, listLeases, listRequests } from '../../schema/catalog/leases.ts';
import { listResources, setReachable } from '../../schema/catalog/resources.ts';
import { recordRunOwner } from '../../schema/catalog/run-owners.ts';
import { createSession, loadSession, updateSession } from '../../schema/catalog/sessions.ts';
import { applySite } from '../../schema/catalog/site.ts';
import { hostId, type RunKey, runKey, runKeyOf, sessionId } from '../../schema/domain/ids.ts';
import { requestOrders } from '../../schema/domain/scheduling.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import { job, site, startTestCatalog, type TestCatalog, Workflows } from '../../tests/fixtures/control.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { createSessionActivities } from '../session/session-activities.ts';
import { ClosedOwners } from './closed-owners.ts';
import type { WorkflowState } from '../temporal-views.ts';
import { createJanitorActivities } from './janitor-activities.ts';
import { storeReachability } from './reachability.ts';
import { WorkerWatch } from './worker-watch.ts';

const startedAt = '2026-11-25T00:00:00.000Z';
const { log } = testSeams();
let nowMs = Date.parse(startedAt);
const clock: Clock = { now: () => nowMs, monotonic: () => nowMs, sleep: () => Promise.resolve() };
let catalog: TestCatalog;
let db: CatalogDatabase;
let workflows: Workflows;
beforeAll(async () => {
  catalog = await startTestCatalog();
  ({ db } = catalog);
});
afterAll(() => catalog?.close());
beforeEach(async () => {
  await catalog.reset();
  workflows = new Workflows();
});

describe('closed workflows', () => {
  const owners = (): ClosedOwners => new ClosedOwners({ db, workflows, clock, log, onFreed: () => (freed += 1) });
  let freed: number;
  beforeEach(() => {
    freed = 0;
  });
  const enqueue = (workflowId: string) =>
    enqueueRequest(db, {
      workflowId,
      requestNumber: 0,
      runKey: runKeyOf(workflowId),
      order: requestOrders.backup,
      manual: false,
      arrivedAt: 0,
      wants: { vmId: null, hostId: hostId('h1'), proxies: null, excludedProxies: [], repositoryId: null, pairs: 1 },
    });
  const lease = (workflowId: string) =>
    db
      .insertInto('leases')
      .values({
        kind: 'host',
        resource_id: 'h1',
        exclusive_key: null,
        workflow_id: workflowId,
        request_number: 0,
        run_key: runKeyOf(workflowId),
        units: 1,
        pair: null,
        granted_at: new Date(),
      })
      .execute();

  it('lose leases, requests and session, but only when seen closed twice and 30 s apart', async () => {
    await lease('open');
    await lease('dead');
    await enqueue('waiting-dead');
    await createSessionActivities({ db, workflows, clock }).startSession({
      input: {
        version: 1,
        sessionId: sessionId('s1'),
        jobId: job.jobId,
        startedBy: 'manual',
        nominalTime: null,
        retryOf: null,
      },
      workflowId: 'w-s1',
      startedAt,
    });
    workflows.states.set('dead', { is: 'closed', how: 'terminated' });
    workflows.states.set('waiting-dead', { is: 'not-found' });
    workflows.states.set('w-s1', { is: 'closed', how: 'failed' });
    const sweeper = owners();
    expect(await sweeper.sweep()).toEqual([]);
    nowMs += 29_999;
    expect(await sweeper.sweep()).toEqual([]);
    expect(freed).toBe(0);
    nowMs += 1;
    expect((await sweeper.sweep()).toSorted()).toEqual(['dead', 'w-s1', 'waiting-dead']);
    expect(freed).toBe(1);
    expect((await listLeases(db)).map(({ workflowId }) => workflowId)).toEqual(['open']);
    expect(await listRequests(db)).toEqual([]);
    expect(await loadSession(db, 's1')).toMatchObject({ state: 'Stopped', result: 'Failed', error: { code: 'BUG' } });
    expect(await sweeper.sweep()).toEqual([]);
  });

  it('close a session only after what its VMs hold was taken from them', async () => {
    await lease('w/vm/v/try-1');
    await lease('w');
    const sweeper = owners();
    workflows.states.set('w', { is: 'closed', how: 'terminated' });
    await sweeper.sweep();
    workflows.states.set('w/vm/v/try-1', { is: 'closed', how: 'terminated' });
    nowMs += 30_000;
    expect(await sweeper.sweep()).toEqual([]);
    nowMs += 30_000;
    expect(await sweeper.sweep()).toEqual(['w/vm/v/try-1', 'w']);
    expect(await listLeases(db)).toEqual([]);
  });

  it('keep everything while Temporal does not answer, and one that is open again begins anew', async () => {
    await lease('w');
    const sweeper = owners();
    workflows.states.set('w', { is: 'closed', how: 'terminated' });
    await sweeper.sweep();
    nowMs += 60_000;
    workflows.states.set('w', new Error('no answer'));
    await sweeper.sweep();
    workflows.states.set('w', { is: 'closed', how: 'terminated' });
    expect(await sweeper.sweep()).toEqual([]);
    expect(await listLeases(db)).toHaveLength(1);
  });

  describe('when Temporal has forgotten many at once', () => {
    const names = ['w1', 'w2', 'w3', 'w4', 'w5'];
    const minutes = async (count: number, sweeper: ClosedOwners): Promise<string[]> => {
      const gone: string[] = [];
      for (const endMs = nowMs + count * 60_000; nowMs < endMs;) {
        nowMs += 30_000;
        gone.push(...(await sweeper.sweep()));
      }
      return gone.toSorted();
    };
    beforeEach(async () => {
      for (const name of names) await lease(name);
      for (const name of names) workflows.states.set(name, { is: 'not-found' });
    });

    it('are left alone for a quarter of an hour, and only they', async () => {
      const sweeper = owners();
      await sweeper.sweep();
      await lease('terminated');
      workflows.states.set('terminated', { is: 'closed', how: 'terminated' });
      expect(await minutes(14, sweeper)).toEqual(['terminated']);
      workflows.states.set('w1', { is: 'open' });
      expect(await minutes(1, sweeper)).toEqual(['w2', 'w3', 'w4', 'w5']);
      expect((await listLeases(db)).map(({ workflowId }) => workflowId)).toEqual(['w1']);
    });

    it('keep what they hold when it remembers them, though a few were asked for before', async () => {
      const sweeper = owners();
      await sweeper.sweep();
      await minutes(10, sweeper);
      for (const name of names.slice(2)) workflows.states.set(name, { is: 'open' });
      expect(await sweeper.sweep()).toEqual([]);
      for (const name of names) workflows.states.set(name, { is: 'open' });
      expect(await minutes(30, sweeper)).toEqual([]);
      expect(await listLeases(db)).toHaveLength(names.length);
    });
  });
});

it('who answers and who does not is kept in the catalog', async () => {
  const watch = new WorkerWatch();
  const signs = (n: number) => ['host.h1.ctl', 'proxy.p1'].map((queue) => ({ instance: queue, queue, sign: `${n}` }));
  await setReachable(db, 'repository', 'main', true, new Date(nowMs));
  const store = (): Promise<boolean> => storeReachability({ db, watch, clock, log });
  const seen = async (): Promise<Record<string, boolean>> => {
    const rows = await Promise.all((['host', 'proxy', 'repository'] as const).map((kind) => listResources(db, kind)));
    return Object.fromEntries(rows.flat().map(({ id, reachable }) => [id, reachable]));
  };
  watch.observe(signs(1), clock.monotonic());
  expect(await store()).toBe(false);
  nowMs += 25_000;
  watch.observe(signs(2), clock.monotonic());
  expect(await store()).toBe(true);
  expect(await seen()).toEqual({ h1: true, p1: true, main: false });
  expect((await listResources(db, 'proxy'))[0]!.seenAt).toBe(new Date(nowMs).toISOString());
  expect(await store()).toBe(false);
  watch.missed();
  nowMs += 100_000;
  expect(await store()).toBe(false);
  watch.observe([{ instance: 'r', queue: 'repository.main.ctl', sign: '1' }], clock.monotonic());
  watch.observe([{ instance: 'r', queue: 'repository.main.ctl', sign: '2' }], clock.monotonic());
  expect(await store()).toBe(true);
  expect(await seen()).toEqual({ h1: true, p1: true, main: true });
});

describe('what sessions left behind', () => {
  const janitor = () => createJanitorActivities({ db, workflows, clock, log });
  async function owned(name: string, state: WorkflowState | Error, hasEnded: boolean): Promise<RunKey> {
    const run = runKey(name.padEnd(12, '0'));
    const session = { sessionId: `s-${name}`, kind: 'backup', jobId: 'nightly', workflowId: `p-${name}` } as const;
    await createSession(db, { ...session, startedBy: 'manual', nominalTime: startedAt, startedAt });
    if (hasEnded) await updateSession(db, `s-${name}`, { state: 'Stopped', result: 'Failed' });
    await recordRunOwner(db, { run, workflowId: `w-${name}`, sessionId: `s-${name}`, vmId: 'a' }, new Date(startedAt));
    workflows.states.set(`w-${name}`, state);
    return run;
  }

  describe('runs', () => {
    it('are over when their workflow is; in doubt they live', async () => {
      const closed = await owned('terminated', { is: 'closed', how: 'terminated' }, false);
      const forgotten = await owned('forgotten', { is: 'not-found' }, true);
      const alive = [
        await owned('open', { is: 'open' }, false),
        // Begun anew by a reset.
        await owned('reset', { is: 'open' }, true),
        await owned('silent', new Error('no answer'), true),
        // Temporal may have lost its memory: its session is still open.
        await owned('lost', { is: 'not-found' }, false),
      ];
      const runs = [closed, forgotten, ...alive];
      expect(await janitor().judgeRuns({ runs, witness: null })).toEqual({ closed: [closed, forgotten], unknown: [] });
      expect(await janitor().judgeRuns({ runs: [], witness: null })).toEqual({ closed: [], unknown: [] });
      expect(workflows.witnesses).toEqual([]);
    });

    it('that the catalog does not know are over when no open workflow has them, and Temporal says so', async () => {
      const known = await owned('terminated', { is: 'closed', how: 'terminated' }, false);
      const [lost, working] = ['lost00000000', 'working00000'].map(runKey) as [RunKey, RunKey];
      workflows.open = [working];
      const runs = [known, lost, working];
      const judge = () => janitor().judgeRuns({ runs, witness: 'janitor' });
      expect(await judge()).toEqual({ closed: [known, lost], unknown: [] });
      expect(workflows.witnesses).toEqual(['janitor']);
      workflows.open = new Error('no answer');
      expect(await judge()).toEqual({ closed: [known], unknown: [lost, working] });
    });

    it('have what was taken away told in their sessions', async () => {
      const run = await owned('x', { is: 'closed', how: 'terminated' }, true);
      const removed = [
        { run, message: 'checkpoint c (host h1)' },
        { run: runKey('nobody000000'), message: 'another' },
      ];
      await janitor().recordJanitor({ removed });
      expect(await listEvents(db, 's-x')).toMatchObject([
        { code: 'TAKEN_AWAY', vmId: 'a', message: 'checkpoint c (host h1)' },
      ]);
    });
  });

  it('the site is what the janitor goes round', async () => {
    expect(await janitor().listSiteParts()).toEqual({ site: 'lab', hosts: ['h1'], repositories: ['main'] });
    await applySite(db, { ...site, machines: [{ ...site.machines[0]!, hosts: [] }], jobs: [] });
    expect(await janitor().listSiteParts()).toMatchObject({ hosts: [], repositories: ['main'] });
  });
});
