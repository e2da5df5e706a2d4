import { randomUUID } from 'node:crypto';
import { WorkflowFailedError } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Activities } from '../activities/contract.ts';
import { jobId, sessionId, siteId, vmId, type VmId } from '../schema/domain/ids.ts';
import { controlQueue } from '../schema/domain/queues.ts';
import {
  type BackupSessionInput,
  backupSessionWorkflowId,
  type PlannedVm,
  queryNames,
  signalNames,
  type VmBackupInput,
  type VmProgress,
} from '../schema/domain/sessions.ts';
import { type Fault, FakeWorld, job, type RunState } from '../tests/fixtures/workflows/fake-world.ts';
import { startWorkflowWorkers, type WorkflowWorkers } from '../tests/fixtures/workflows/workflow-workers.ts';

const world = new FakeWorld();
let workers: WorkflowWorkers;
beforeAll(async () => {
  workers = await startWorkflowWorkers(world.activities());
});
afterAll(() => workers.close());

const plannedVm = (position: number, id: VmId = vmId(randomUUID())): PlannedVm => ({
  vm: { vmId: id, hostId: 'h1' as never },
  name: `vm-${position}`,
  excludeDisks: [],
  position,
  diskCount: 2,
});
const inputOf = (over: Partial<VmBackupInput['job']> = {}): VmBackupInput => ({
  version: 1,
  sessionId: sessionId('s'),
  site: siteId('s1'),
  job: { ...job, ...over },
  vm: plannedVm(0),
  nominalTime: new Date().toISOString(),
  manual: true,
  attempt: 1,
});

type Ended = { status: string; state: RunState };

/** Runs one VM with the faults given; `during`: what to do once an activity is entered the first time. */
async function backUp(
  faults: Partial<Record<keyof Activities, Fault>>,
  during?: { name: keyof Activities; act: (workflowId: string) => Promise<unknown> },
): Promise<Ended> {
  const workflowId = `vm-${randomUUID()}`;
  world.faults.set(workflowId, faults);
  const entered = during ? firstCall(workflowId, during.name) : null;
  const handle = await workers.client.workflow.start('vmBackup', {
    workflowId,
    taskQueue: controlQueue,
    args: [inputOf()],
  });
  if (during) {
    await entered;
    await during.act(workflowId);
  }
  await handle.result().catch((error: unknown) => {
    if (!(error instanceof WorkflowFailedError)) throw error;
  });
  const { status } = await handle.describe();
  return { status: status.name, state: world.of(workflowId) };
}

const listeners = new Map<string, () => void>();
world.onCall = (workflowId, name) => listeners.get(`${workflowId} ${name}`)?.();
const firstCall = (workflowId: string, name: keyof Activities): Promise<void> =>
  new Promise((resolve) => listeners.set(`${workflowId} ${name}`, resolve));

/** What must hold whatever happened. */
function expectNothingLeft(state: RunState, note: string): void {
  expect(state.leases, `${note}: leases`).toBe(0);
  expect(state.frozen, `${note}: frozen`).toBe(false);
  expect(state.accesses, `${note}: accesses`).toBe(0);
  expect(state.checkpoint, `${note}: checkpoint`).toBe(false);
  expect(state.recorded, `${note}: recorded`).not.toBeNull();
  const isSealed = state.point === 'sealed';
  expect(state.recorded!.result !== 'Failed', `${note}: result is the truth`).toBe(isSealed);
  expect(state.recordedPoint, `${note}: the catalog lists what is sealed`).toBe(isSealed);
  expect(state.referencePoints, `${note}: reference points`).toEqual(isSealed ? [state.recorded!.run] : ['base']);
  expect(['sealed', 'aborted', 'none']).toContain(state.point);
}

const steps = [
  'acquireResources',
  'openRestorePoint',
  'connectMovers',
  'inspectVm',
  'declareDisks',
  'prepareGuest',
  'createCheckpoint',
  'thawGuest',
  'confirmLeases',
  'assignTransfer',
  'openAccess',
  'transferDisk',
  'closeAccess',
  'releaseCheckpoint',
  'sealRestorePoint',
] as const satisfies (keyof Activities)[];

describe('vmBackup', () => {
  it('goes the whole way in the order of the design', async () => {
    const { status, state } = await backUp({});
    expect(status).toBe('COMPLETED');
    expectNothingLeft(state, 'success');
    expect(state.recorded!.result).toBe('Success');
    const order = state.calls.filter((name, at) => state.calls.indexOf(name) === at);
    expect(order).toEqual(
      `startVm acquireResources openRestorePoint connectMovers inspectVm declareDisks prepareGuest createCheckpoint
       thawGuest confirmLeases assignTransfer openAccess transferDisk closeAccess releaseCheckpoint sealRestorePoint
       commitReferencePoint releaseResources recordRestorePoint recordVm`.split(/\s+/),
    );
    expect(state.recorded!.disks).toMatchObject([{ readBytes: 10, sentBytes: 5 }, { readBytes: 10 }]);
  });

  it('leaves nothing when a step fails for good, before or after it was done', async () => {
    await Promise.all(
      steps.flatMap((name) =>
        (['before', 'reply'] as const).map(async (at) => {
          const { status, state } = await backUp({ [name]: { at, code: 'BAD_DISK', times: 1 } });
          expectNothingLeft(state, `${name} ${at}`);
          const isSealed = name === 'sealRestorePoint' && at === 'reply';
          expect(status, `${name} ${at}`).toBe(isSealed ? 'COMPLETED' : 'FAILED');
          if (isSealed) expect(state.recorded).toMatchObject({ result: 'Warning', error: null });
          else expect(state.recorded!.error).toMatchObject({ code: 'BAD_DISK', hint: expect.stringMatching(/\.$/) });
        }),
      ),
    );
  }, 120_000);

  it('goes on when a step fails once and may be tried again', async () => {
    const once = [
      ...steps.filter((name) => name !== 'prepareGuest'),
      'commitReferencePoint',
      'recordRestorePoint',
    ] as const;
    await Promise.all(
      once.map(async (name) => {
        const { status, state } = await backUp({ [name]: { at: 'reply', times: 1 } });
        expectNothingLeft(state, name);
        expect(status, name).toBe('COMPLETED');
      }),
    );
  }, 120_000);

  it('leaves nothing when it is cancelled, wherever that is', async () => {
    const cancel = (workflowId: string): Promise<unknown> => workers.client.workflow.getHandle(workflowId).cancel();
    const beating = ['acquireResources', 'prepareGuest', 'createCheckpoint', 'transferDisk', 'closeAccess'] as const;
    await Promise.all(
      beating.map(async (name) => {
        const { status, state } = await backUp({ [name]: { at: 'hang', times: 1 } }, { name, act: cancel });
        expectNothingLeft(state, name);
        expect(status, name).toBe('CANCELLED');
        expect(state.recorded!.error?.code).toBe('STOPPED');
      }),
    );
  }, 120_000);

  it('gives each try of a transfer a fence of its own, at most five', async () => {
    const { state } = await backUp({ transferDisk: { at: 'before', code: 'TRANSFER_FAILED', times: 1 } });
    expect([...state.fences].sort((a, b) => a - b)).toEqual([1, 1, 2]);
    const { state: lost } = await backUp({ transferDisk: { at: 'before', code: 'BAD_DISK', times: 1 } });
    expect(lost.recorded!.error?.code).toBe('BAD_DISK');
    expect(Math.max(...lost.fences)).toBe(1);
  }, 120_000);

  it('keeps both reference points when the repository does not decide', async () => {
    const faults = {
      transferDisk: { at: 'before', code: 'BAD_DISK', times: 2 },
      abortRestorePoint: { at: 'before', code: 'STORAGE_ERROR', times: 99 },
    } as const;
    const { state } = await backUp(faults);
    expect(state.recorded).toMatchObject({ result: 'Failed', error: { code: 'BAD_DISK' } });
    expect(state.referencePoints).toEqual(['base', state.recorded!.run]);
    expect(state.checkpoint).toBe(false);
    expect(state.leases).toBe(0);
    expect(state.recorded!.findings.map(({ code }) => code)).toEqual(expect.arrayContaining(['STORAGE_ERROR']));
  });

  it('a failed undo hides neither the reason nor the other undos', async () => {
    const bad = { at: 'before', code: 'NOT_OURS', times: 99 } as const;
    const { state } = await backUp({ transferDisk: { at: 'before', code: 'BAD_DISK', times: 2 }, closeAccess: bad });
    expect(state.recorded!.error?.code).toBe('BAD_DISK');
    expect(state.recorded!.findings.some(({ message }) => message.includes('janitor'))).toBe(true);
    expect(state).toMatchObject({ leases: 0, point: 'aborted', frozen: false });
  });

  it('answers how far it is', async () => {
    let progress: VmProgress | null = null;
    const ask = async (workflowId: string): Promise<void> => {
      const handle = workers.client.workflow.getHandle(workflowId);
      progress = await handle.query<VmProgress>(queryNames.vmProgress);
      await handle.cancel();
    };
    await backUp({ transferDisk: { at: 'hang', times: 2 } }, { name: 'transferDisk', act: ask });
    expect(progress).toMatchObject({ step: 'transferring', disks: [{ mode: 'full', proxyId: 'p1' }, {}] });
  });
});

async function session(vms: PlannedVm[], during?: { name: keyof Activities; act: (id: string) => Promise<unknown> }) {
  world.planned = vms;
  const id = sessionId(randomUUID());
  const input: BackupSessionInput = {
    version: 1,
    sessionId: id,
    jobId: jobId('nightly'),
    startedBy: 'manual',
    nominalTime: null,
    retryOf: null,
  };
  const workflowId = backupSessionWorkflowId(input.jobId, id);
  const childOf = (vm: PlannedVm): string => `${workflowId}/vm/${vm.vm.vmId}/try-1`;
  const entered = during ? firstCall(childOf(vms[0]!), during.name) : null;
  const handle = await workers.client.workflow.start('backupSession', {
    workflowId,
    taskQueue: controlQueue,
    args: [input],
  });
  if (during) {
    await entered;
    await during.act(workflowId);
  }
  const outcome = await handle.result().catch((error: unknown) => error);
  const { status } = await handle.describe();
  return {
    status: status.name,
    outcome,
    session: world.sessions.get(id)!,
    state: (vm: PlannedVm) => world.of(childOf(vm)),
  };
}

describe('backupSession', () => {
  it('runs its VMs, so many at once as the job allows, and ends with the worst of them', async () => {
    const vms = [0, 1, 2, 3, 4].map((position) => plannedVm(position));
    world.most.atOnce = 0;
    const { status, session: rows } = await session(vms);
    expect(status).toBe('COMPLETED');
    expect(rows.result).toBe('Success');
    expect(rows.states).toEqual(['Starting', 'Working', 'Postprocessing', 'Stopped']);
    expect(world.most.atOnce).toBeLessThanOrEqual(job.maxParallelVms * 2);
  }, 60_000);

  it('fails truthfully when one VM fails, and the others are backed up', async () => {
    const vms = [plannedVm(0), plannedVm(1)];
    world.onCall = (workflowId, name) => {
      listeners.get(`${workflowId} ${name}`)?.();
      if (name === 'startVm' && workflowId.includes(vms[0]!.vm.vmId))
        world.faults.set(workflowId, { inspectVm: { at: 'before', code: 'VM_NOT_FOUND', times: 9 } });
    };
    const { status, session: rows, state } = await session(vms);
    expect(status).toBe('FAILED');
    expect(rows).toMatchObject({ result: 'Failed', error: { code: 'VM_NOT_FOUND' } });
    expect(state(vms[1]!).recorded!.result).toBe('Success');
    for (const vm of vms) expectNothingLeft(state(vm), vm.name);
  }, 60_000);

  it.each(['immediate', 'graceful'])(
    'stops, %s',
    async (how) => {
      const vms = [0, 1, 2, 3].map((position) => plannedVm(position));
      let sessionWorkflow = '';
      const stop = async (workflowId: string): Promise<void> => {
        sessionWorkflow = workflowId;
        const handle = workers.client.workflow.getHandle(workflowId);
        await (how === 'immediate' ? handle.cancel() : handle.signal(signalNames.stop));
      };
      const { status, session: rows, state } = await session(vms, { name: 'transferDisk', act: stop });
      expect(status).toBe(how === 'immediate' ? 'CANCELLED' : 'FAILED');
      expect(rows).toMatchObject({ result: 'Failed', error: { code: 'STOPPED' } });
      expect(rows.states).toContain('Stopping');
      expect(rows.unprocessed).toBeGreaterThan(0);
      expect(state(vms[0]!).recorded!.result).toBe(how === 'immediate' ? 'Failed' : 'Success');
      // What a VM has recorded of itself stays, also when it was cancelled: the session writes nothing over it.
      expect(world.of(sessionWorkflow).recorded).toBeNull();
      for (const vm of vms) if (state(vm).recorded) expectNothingLeft(state(vm), vm.name);
    },
    30_000,
  );
});
