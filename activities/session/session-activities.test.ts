import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listEvents } from '../../schema/catalog/events.ts';
import { listSessions, loadSession } from '../../schema/catalog/sessions.ts';
import { applySite } from '../../schema/catalog/site.ts';
import { errorTable } from '../../schema/domain/errors.ts';
import { diskKey, hostId, jobId, proxyId, restorePointId, runKeyOf, sessionId, vmId } from '../../schema/domain/ids.ts';
import type { BackupSessionInput, VmBackupResult } from '../../schema/domain/sessions.ts';
import { job, site, startTestCatalog, type TestCatalog, Workflows } from '../../tests/fixtures/control.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import type { WorkflowState } from '../temporal-views.ts';
import { createSessionActivities } from './session-activities.ts';

const startedAt = '2026-11-25T00:00:00.000Z';
const { clock } = testSeams();

let catalog: TestCatalog;
let db: CatalogDatabase;
let workflows: Workflows;
let activities: ReturnType<typeof createSessionActivities>;
beforeAll(async () => {
  catalog = await startTestCatalog();
  ({ db } = catalog);
});
afterAll(() => catalog?.close());
beforeEach(async () => {
  await catalog.reset();
  workflows = new Workflows();
  activities = createSessionActivities({ db, workflows, clock });
});

const input = (id: string, change: Partial<BackupSessionInput> = {}): BackupSessionInput => ({
  version: 1,
  sessionId: sessionId(id),
  jobId: job.jobId,
  startedBy: 'manual',
  nominalTime: null,
  retryOf: null,
  ...change,
});
const start = (id: string, change: Partial<BackupSessionInput> = {}) =>
  activities.startSession({ input: input(id, change), workflowId: `w-${id}`, startedAt });
const inventory = ['a', 'b'].map((name) => ({
  vm: { vmId: vmId(name), hostId: hostId('h1') },
  name,
  power: 'on' as const,
  disks: [{ diskKey: diskKey('d0'), sizeBytes: 4096 }],
}));
const plan = (id: string) =>
  activities.planSession({
    sessionId: sessionId(id),
    inventories: [{ hostId: hostId('h1'), vms: inventory }],
    silent: [],
  });
const begin = (id: string, vm: string, attempt = 1) =>
  activities.startVm({
    sessionId: sessionId(id),
    vm: { vmId: vmId(vm), hostId: hostId('h1') },
    attempt,
    run: runKeyOf(`${id}/${vm}`),
    workflowId: `w-${id}/${vm}`,
    startedAt,
  });
const resultOf = (id: string, vm: string, change: Partial<VmBackupResult> = {}): VmBackupResult => ({
  vmId: vmId(vm),
  run: runKeyOf(`${id}/${vm}`),
  result: 'Success',
  restorePointId: restorePointId('1'.repeat(32)),
  consistency: 'crash',
  disks: [
    {
      diskKey: diskKey('d0'),
      mode: 'full',
      reason: { code: 'first', message: 'no restore point to build on' },
      proxyId: proxyId('p1'),
      sizeBytes: 4096,
      readBytes: 4096,
      sentBytes: 1000,
      audit: { sampled: 64, mismatched: 0 },
      conservation: {
        sizeBytes: 4096,
        unallocatedBytes: 0,
        zeroBytes: 0,
        filteredBytes: 0,
        unchangedBytes: 0,
        deduplicatedBytes: 0,
        storedBytes: 4096,
      },
    },
  ],
  findings: [{ level: 'warning', code: 'GUEST_UNREACHABLE', message: 'no agent' }],
  error: null,
  startedAt,
  endedAt: '2026-11-25T00:10:00.000Z',
  ...change,
});

describe('start', () => {
  it('gives the job and makes the row, once', async () => {
    expect(await start('s1')).toEqual({ site: 'lab', job });
    expect(await start('s1')).toEqual({ site: 'lab', job });
    expect(await listSessions(db)).toMatchObject([
      { sessionId: 's1', state: 'Starting', workflowId: 'w-s1', nominalTime: startedAt },
    ]);
    await expect(start('s2', { jobId: jobId('weekly') })).rejects.toMatchObject({ type: 'JOB_NOT_FOUND' });
  });

  it('names the session that runs already; one that is Stopped is in nobody’s way', async () => {
    await start('s1');
    await activities.updateSession({ sessionId: sessionId('s1'), state: 'Working' });
    await expect(start('s2')).rejects.toMatchObject({
      type: 'ALREADY_RUNNING',
      message: `session s1 of job nightly is Working since ${startedAt}`,
      nonRetryable: true,
    });
    await activities.updateSession({ sessionId: sessionId('s1'), state: 'Stopped', result: 'Success' });
    await start('s2');
    expect((await loadSession(db, 's2'))?.state).toBe('Starting');
  });

  it.each<[WorkflowState, string]>([
    [{ is: 'closed', how: 'terminated' }, 'workflow w-s1 ended (terminated) without closing the session'],
    [{ is: 'not-found' }, 'workflow w-s1 is not known to Temporal any more; the session was never closed'],
  ])('closes a session whose workflow is %j, and starts', async (state, message) => {
    await start('s1');
    await plan('s1');
    await begin('s1', 'a');
    workflows.states.set('w-s1', state);
    await start('s2');
    const closed = await loadSession(db, 's1');
    const error = { code: 'STOPPED', message, hint: errorTable.STOPPED.hint };
    expect(closed).toMatchObject({ state: 'Stopped', result: 'Failed', error });
    expect(closed!.vms.map((vm) => [vm.vmId, vm.result, vm.error?.message])).toEqual([
      ['a', 'Failed', message],
      ['b', 'NotProcessed', undefined],
    ]);
  });

  it('takes no answer of Temporal for a yes', async () => {
    await start('s1');
    workflows.states.set('w-s1', Object.assign(new Error('no answer'), { code: 'UNREACHABLE' }));
    await expect(start('s2')).rejects.toMatchObject({ type: 'UNREACHABLE', nonRetryable: false });
    expect((await loadSession(db, 's1'))?.state).toBe('Starting');
    expect(await loadSession(db, 's2')).toBeNull();
  });

  it('of twelve starts at once one wins', async () => {
    const starts = await Promise.allSettled(Array.from({ length: 12 }, (_, n) => start(`s${n}`)));
    expect(starts.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    expect(await listSessions(db, { open: true })).toHaveLength(1);
  });
});

describe('rows', () => {
  it('go from plan to result; everything may be said twice', async () => {
    await start('s1');
    for (let time = 0; time < 2; time += 1) {
      expect((await plan('s1')).vms.map(({ vm, diskCount }) => [vm.vmId, diskCount])).toEqual([
        ['a', 1],
        ['b', 1],
      ]);
      await begin('s1', 'a');
      await activities.recordVm({ sessionId: sessionId('s1'), step: 'done', result: resultOf('s1', 'a') });
      await activities.recordUnprocessed({
        sessionId: sessionId('s1'),
        vms: [{ vmId: vmId('b'), hostId: hostId('h1') }],
      });
    }
    const session = (await loadSession(db, 's1'))!;
    expect(session.vms[0]).toMatchObject({
      step: 'done',
      result: 'Success',
      attempt: 1,
      runKey: runKeyOf('s1/a'),
      disks: [{ diskKey: 'd0', doneBytes: 4096, storedBytes: 4096, proxyId: 'p1', reason: { code: 'first' } }],
    });
    expect(session.vms[1]).toMatchObject({ step: 'waiting', result: 'NotProcessed' });
    expect((await listEvents(db, 's1')).map(({ vmId, code }) => [vmId, code])).toEqual([['a', 'GUEST_UNREACHABLE']]);
  });

  it('keep why a VM failed, and a new round begins clean', async () => {
    await start('s1');
    await plan('s1');
    await begin('s1', 'a');
    const error = { code: 'REPOSITORY_FULL', message: 'no room', hint: 'add some' } as const;
    const failed = resultOf('s1', 'a', { result: 'Failed', restorePointId: null, error, disks: [], findings: [] });
    await activities.recordVm({ sessionId: sessionId('s1'), step: 'transferring', result: failed });
    expect((await loadSession(db, 's1'))!.vms[0]).toMatchObject({ step: 'transferring', result: 'Failed', error });
    expect(await listEvents(db, 's1')).toMatchObject([{ level: 'error', code: 'REPOSITORY_FULL', message: 'no room' }]);
    await begin('s1', 'a', 2);
    expect((await loadSession(db, 's1'))!.vms[0]).toMatchObject({
      step: 'waiting',
      result: 'None',
      attempt: 2,
      error: null,
      endedAt: null,
    });
  });

  it('a retry takes only what failed', async () => {
    await start('s1');
    await plan('s1');
    await begin('s1', 'a');
    await activities.recordVm({ sessionId: sessionId('s1'), step: 'done', result: resultOf('s1', 'a') });
    await activities.recordUnprocessed({
      sessionId: sessionId('s1'),
      vms: [{ vmId: vmId('b'), hostId: hostId('h1') }],
    });
    await activities.updateSession({ sessionId: sessionId('s1'), state: 'Stopped', result: 'Failed' });
    await start('s2', { retryOf: sessionId('s1') });
    expect((await plan('s2')).vms.map(({ name }) => name)).toEqual(['b']);
    await begin('s2', 'b');
    await activities.recordVm({ sessionId: sessionId('s2'), step: 'done', result: resultOf('s2', 'b') });
    await activities.updateSession({ sessionId: sessionId('s2'), state: 'Stopped', result: 'Success' });
    await start('s3', { retryOf: sessionId('s2') });
    await expect(plan('s3')).rejects.toMatchObject({ type: 'BAD_REQUEST', message: 'no VM of session s2 has failed' });
  });

  it('plans by the job as it was when the session started', async () => {
    await start('s1');
    await applySite(db, { ...site, jobs: [{ ...job, vms: job.vms.slice(0, 1) }] });
    expect((await plan('s1')).vms).toHaveLength(2);
  });

  it('are of a session that works once it is planned, unless it was being stopped by then', async () => {
    const stateOf = async (id: string) => (await loadSession(db, id))!.state;
    await start('s1');
    await plan('s1');
    expect(await stateOf('s1')).toBe('Working');
    await activities.updateSession({ sessionId: sessionId('s1'), state: 'Stopping' });
    // An answer that was lost: it is planned again.
    await plan('s1');
    expect(await stateOf('s1')).toBe('Stopping');
  });
});
