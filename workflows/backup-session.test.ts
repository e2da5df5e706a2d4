import type { WorkflowHandle } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MAX_VMS_PER_JOB } from '../schema/domain/configuration.ts';
import { jobId } from '../schema/domain/ids.ts';
import { searchAttributeNames, signalNames, vmBackupWorkflowId } from '../schema/domain/sessions.ts';
import { job, REFUSED_JOB } from '../tests/fixtures/workflows/fake-control.ts';
import type { Faults } from '../tests/fixtures/workflows/fake-world.ts';
import { detailsOf, type EndedSession, onHost, plannedVm, type Play } from '../tests/fixtures/workflows/play.ts';
import { expectNothingLeft, startPlay } from '../tests/fixtures/workflows/start-play.ts';
import { MOST_ROUNDS } from './backup-session.ts';

let play: Play;
beforeAll(async () => {
  play = await startPlay();
});
afterAll(() => play?.close());

const some = (count: number) => Array.from({ length: count }, (_, position) => plannedVm(position));
const cancel = (of: WorkflowHandle): Promise<unknown> => of.cancel();
const stop = (of: WorkflowHandle): Promise<unknown> => of.signal(signalNames.stop);
const failing = (code: 'BAD_DISK' | 'VM_NOT_FOUND' | 'NOT_CONSERVED'): Faults => ({
  inspectVm: { at: 'before', code, times: 99 },
});
/** Pauses of minutes become such of seconds. */
const quick = { timersBy: 500 };

async function attributesOf({ handle }: EndedSession): Promise<Record<string, unknown>> {
  const { searchAttributes } = await handle.describe();
  const { job: ofJob, state, result, repository } = searchAttributeNames;
  const value = (name: string): unknown => searchAttributes[name]?.[0];
  return { job: value(ofJob), state: value(state), result: value(result), repository: value(repository) };
}

describe('backupSession', () => {
  it('runs so many VMs at once as the job allows, and ends with the worst of them', async () => {
    const vms = some(5);
    play.world.working.most = 0;
    const ended = await play.session({ vms });
    expect(ended.status).toBe('COMPLETED');
    expect(ended.rows).toMatchObject({
      result: 'Success',
      error: null,
      states: ['Starting', 'Working', 'Stopped'],
    });
    for (const vm of vms) expect(expectNothingLeft(ended.state(vm), vm.name).result).toBe('Success');
    expect(play.world.working.most).toBeLessThanOrEqual(job.maxParallelVms);
    expect(await attributesOf(ended)).toEqual({
      job: 'nightly',
      repository: 'main',
      state: 'Stopped',
      result: 'Success',
    });
    const child = play.client.workflow.getHandle(vmBackupWorkflowId(ended.handle.workflowId, vms[0]!.vm.vmId, 1));
    const { searchAttributes, raw } = await child.describe();
    expect(searchAttributes[searchAttributeNames.runKey]).toEqual([ended.state(vms[0]!).recorded!.run]);
    const summary = raw.executionConfig?.userMetadata?.summary?.data;
    expect(Buffer.from(summary!).toString()).toBe('"VM vm-0 on host h1, job nightly, try 1"');
  });

  it('writes so little history for each try of a VM that the largest job stays within what Temporal bears', async () => {
    const eventsOf = async (count: number): Promise<number> =>
      (await (await play.session({ vms: some(count) })).handle.fetchHistory()).events!.length;
    const perTry = ((await eventsOf(5)) - (await eventsOf(1))) / 4;
    // All of them fail in every try; a tenth is left for stopping them, and for the rest of the session.
    expect(perTry).toBeGreaterThan(3);
    expect(MAX_VMS_PER_JOB * (1 + MOST_ROUNDS) * perTry).toBeLessThan(51_200 * 0.9);
  });

  it('fails with the reason when a VM fails, and the others are backed up', async () => {
    const vms = some(2);
    const faults = (vm: (typeof vms)[0]): Faults => (vm === vms[0] ? failing('BAD_DISK') : {});
    const ended = await play.session({ vms, faults });
    expect(ended).toMatchObject({ status: 'FAILED', error: { type: 'BAD_DISK' } });
    expect(ended.rows).toMatchObject({
      result: 'Failed',
      error: { code: 'BAD_DISK', message: 'vm vm-0: inspectVm failed as asked' },
    });
    expect(expectNothingLeft(ended.state(vms[1]!), 'the other').result).toBe('Success');
    expectNothingLeft(ended.state(vms[0]!), 'the failed one');
    const details = await detailsOf(ended.handle);
    expect(details).toContain('Stopped, Failed');
    expect(details).toMatch(/What to do: .*\./);
    expect(details.split('\n').filter((line) => line.startsWith('| vm-'))).toEqual([
      '| vm-0 | h1 | Failed |  |  | BAD_DISK: inspectVm failed as asked |',
      '| vm-1 | h1 | Success | filesystem | source 80% |  |',
    ]);
    expect(details).toContain('bottleneck: **source 80%** (Source 80% > Proxy 10% > Network 0% > Target 10%)');
  });

  it('is completed with a warning when a VM has one', async () => {
    const faults = (): Faults => ({ commitReferencePoint: { at: 'before', code: 'BAD_DISK', times: 99 } });
    const ended = await play.session({ vms: some(1), faults });
    expect(ended.status).toBe('COMPLETED');
    expect(ended.rows).toMatchObject({ result: 'Warning', error: null });
    expect(await attributesOf(ended)).toMatchObject({ state: 'Stopped', result: 'Warning' });
  });

  it('plans with the inventory that is known where a host is silent, and warns', async () => {
    const vms = [plannedVm(0), plannedVm(1, onHost('silent'))];
    const activities = { listInventory: { startMs: 1500 } };
    const faults = (vm: (typeof vms)[0]): Faults => (vm === vms[1] ? failing('BAD_DISK') : {});
    // The VM of the silent host waits for that host, until it is stopped.
    const ended = await play.session({ vms, faults, quick: { activities }, during: { name: 'recordVm', act: cancel } });
    const details = await detailsOf(ended.handle);
    expect(details).toContain('warning `OLD_INVENTORY`: host silent');
    expect(details).toContain('info `UNREACHABLE`: host silent: listInventory: host silent did not take it up');
    expect(ended.state(vms[0]!).recorded?.result).toBe('Success');
    expectNothingLeft(ended.state(vms[1]!), 'stopped');
  });

  it('fails by the code of what keeps it from starting, and has no rows', async () => {
    const ended = await play.session({ vms: some(1), input: { jobId: jobId(REFUSED_JOB) } });
    expect(ended).toMatchObject({
      status: 'FAILED',
      error: { type: 'JOB_NOT_FOUND', message: 'there is no job unknown' },
    });
    expect(ended.rows.states).toEqual([]);
  });
});

describe('stopping a backupSession', () => {
  it('at once takes back what is in work, and begins no other VM', async () => {
    const vms = some(4);
    const faults = (): Faults => ({ transferDisk: { at: 'hang', times: 2 } });
    const ended = await play.session({ vms, faults, during: { name: 'transferDisk', act: cancel } });
    expect(ended.status).toBe('CANCELLED');
    expect(ended.rows).toMatchObject({ result: 'Failed', error: { code: 'STOPPED' } });
    expect(ended.rows.states).toEqual(['Starting', 'Working', 'Stopping', 'Postprocessing', 'Stopped']);
    const processed = vms.filter((vm) => ended.state(vm).recorded);
    expect(ended.rows.unprocessed).toBe(vms.length - processed.length);
    expect(processed.length).toBeLessThanOrEqual(2);
    for (const vm of processed) expect(expectNothingLeft(ended.state(vm), vm.name).error?.code).toBe('STOPPED');
    expect(await attributesOf(ended)).toMatchObject({ state: 'Stopped', result: 'Failed' });
    // What a VM has recorded of itself stays: the session writes nothing over it.
    expect(play.world.of(ended.handle.workflowId).recorded).toBeNull();
  });

  it('gracefully lets those finish that have begun their checkpoint', async () => {
    const vms = some(4);
    const faults = (vm: (typeof vms)[0]): Faults =>
      vm === vms[0] ? { transferDisk: { at: 'late', times: 2 } } : { acquireResources: { at: 'hang', times: 1 } };
    const ended = await play.session({ vms, faults, during: { name: 'transferDisk', act: stop } });
    expect(ended).toMatchObject({ status: 'FAILED', error: { type: 'STOPPED' } });
    expect(ended.rows.states).toContain('Stopping');
    expect(expectNothingLeft(ended.state(vms[0]!), 'in work').result).toBe('Success');
    // The one that waited for its resources is skipped, the others are not begun.
    expect(expectNothingLeft(ended.state(vms[1]!), 'waiting').error?.code).toBe('STOPPED');
    expect(ended.rows.unprocessed).toBe(2);
  });

  it('ends at once while it still plans', async () => {
    const vms = some(2);
    play.world.planned = vms;
    const activities = { listInventory: { startMs: 3000 } };
    const silent = vms.map((vm) => ({ ...vm, ...onHost('silent') }));
    const sessionEnded = play.session({ vms: silent, quick: { activities } });
    const [[id]] = await untilOne(() => [...play.world.sessions].filter(([, rows]) => rows.states.length === 1));
    await play.client.workflow.getHandle(`backup-session/nightly/${id}`).cancel();
    const ended = await sessionEnded;
    expect(ended.status).toBe('CANCELLED');
    expect(ended.rows).toMatchObject({ result: 'Failed', error: { code: 'STOPPED' }, unprocessed: 0 });
    for (const vm of silent) expect(ended.state(vm).calls).toEqual([]);
  });
});

/** The first answer that is not empty. */
async function untilOne<T>(look: () => T[]): Promise<[T, ...T[]]> {
  for (;;) {
    const found = look();
    if (found.length > 0) return found as [T, ...T[]];
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

describe('a scheduled backupSession', () => {
  const input = { startedBy: 'schedule' } as const;

  it('tries failed VMs again, and only those', async () => {
    const vms = some(2);
    const faults = (vm: (typeof vms)[0], attempt: number): Faults =>
      vm === vms[0] && attempt < 3 ? failing('NOT_CONSERVED') : {};
    const ended = await play.session({ vms, faults, input, quick });
    expect(ended.status).toBe('COMPLETED');
    expect(ended.rows.result).toBe('Success');
    expect(ended.rows.states.filter((state) => state === 'WaitingRetry')).toHaveLength(2);
    expect([1, 2, 3, 4].map((attempt) => ended.state(vms[0]!, attempt).recorded?.result)).toEqual([
      'Failed',
      'Failed',
      'Success',
      undefined,
    ]);
    expect(ended.state(vms[1]!, 2).calls).toEqual([]);
    for (const attempt of [1, 2, 3]) expectNothingLeft(ended.state(vms[0]!, attempt), `try ${attempt}`);
  });

  it('gives up after three more tries', async () => {
    const vms = some(1);
    const ended = await play.session({ vms, faults: () => failing('NOT_CONSERVED'), input, quick });
    expect(ended).toMatchObject({ status: 'FAILED', error: { type: 'NOT_CONSERVED' } });
    expect([4, 5].map((attempt) => ended.state(vms[0]!, attempt).calls.length > 0)).toEqual([true, false]);
  });

  it('does not try again what only a person can mend', async () => {
    const vms = some(1);
    const ended = await play.session({ vms, faults: () => failing('VM_NOT_FOUND'), input, quick });
    expect(ended).toMatchObject({ status: 'FAILED', error: { type: 'VM_NOT_FOUND' } });
    expect(ended.state(vms[0]!, 2).calls).toEqual([]);
    expect(ended.rows.states).not.toContain('WaitingRetry');
  });

  it.each([
    ['gracefully', stop, 'FAILED', 'NOT_CONSERVED'],
    ['at once', cancel, 'CANCELLED', 'STOPPED'],
  ] as const)('can be stopped (%s) while it waits to try again', async (_how, act, status, code) => {
    const vms = some(1);
    const running = play.session({ vms, faults: () => failing('NOT_CONSERVED'), input });
    const [[id]] = await untilOne(() =>
      [...play.world.sessions].filter(([, { states }]) => states.at(-1) === 'WaitingRetry'),
    );
    await act(play.client.workflow.getHandle(`backup-session/nightly/${id}`));
    const ended = await running;
    expect(ended.status).toBe(status);
    expect(ended.rows).toMatchObject({ result: 'Failed', error: { code }, unprocessed: 0 });
    expect(ended.state(vms[0]!, 2).calls).toEqual([]);
  });

  it('writes the row of a VM whose workflow was terminated', async () => {
    const vms = some(1);
    const terminate = (of: WorkflowHandle): Promise<unknown> =>
      play.client.workflow.getHandle(vmBackupWorkflowId(of.workflowId, vms[0]!.vm.vmId, 1)).terminate('by hand');
    const faults = (): Faults => ({ transferDisk: { at: 'late', times: 2 } });
    const ended = await play.session({ vms, faults, during: { name: 'transferDisk', act: terminate } });
    expect(ended).toMatchObject({ status: 'FAILED', error: { type: 'STOPPED' } });
    // The session wrote it: the VM's own workflow could not.
    expect(play.world.of(ended.handle.workflowId).recorded).toMatchObject({
      result: 'Failed',
      error: { code: 'STOPPED', message: 'its workflow was terminated' },
    });
  });
});
