import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Activities } from '../activities/contract.ts';
import { diskKey } from '../schema/domain/ids.ts';
import type { VmProgress } from '../schema/domain/sessions.ts';
import { queryNames, signalNames } from '../schema/domain/sessions.ts';
import { sampled } from '../tests/fixtures/sampled.ts';
import { pointId } from '../tests/fixtures/workflows/fake-maintenance.ts';
import type { Fault } from '../tests/fixtures/workflows/fake-world.ts';
import { type Ended, type Play } from '../tests/fixtures/workflows/play.ts';
import { expectNothingLeft, startPlay } from '../tests/fixtures/workflows/start-play.ts';
import { activityBounds } from './activity-options.ts';

let play: Play;
beforeAll(async () => {
  play = await startPlay();
});
afterAll(() => play?.close());

type Step = keyof Activities;
/** Steps that go side by side, in whatever order; all others come one after another. */
const together: Step[][] = [
  ['startVm', 'acquireResources'],
  ['openRestorePoint', 'inspectVm'],
  ['connectMovers', 'declareDisks'],
  ['thawGuest', 'assignTransfer', 'openAccess', 'transferDisk'],
  ['commitReferencePoint', 'completeGuest', 'recordRestorePoint', 'releaseResources', 'recordVm'],
];
const beforeTheSeal = [
  'startVm',
  'acquireResources',
  'openRestorePoint',
  'inspectVm',
  'connectMovers',
  'declareDisks',
  'prepareGuest',
  'createCheckpoint',
  'thawGuest',
  'assignTransfer',
  'openAccess',
  'transferDisk',
  'releaseCheckpoint',
] as const satisfies Step[];
const fromTheSeal = [
  'sealRestorePoint',
  'commitReferencePoint',
  'releaseResources',
  'completeGuest',
  'recordRestorePoint',
  'recordVm',
] as const satisfies Step[];
const allSteps: Step[] = [...beforeTheSeal, ...fromTheSeal];

/** One disk is enough, and quicker; so many at once as a busy machine bears. */
async function forEachStep(steps: readonly Step[], work: (name: Step) => Promise<void>): Promise<void> {
  const waiting = [...steps];
  const next = async (): Promise<void> => {
    for (let name = waiting.shift(); name; name = waiting.shift()) await work(name);
  };
  await Promise.all(Array.from({ length: 8 }, next));
}
/** Several faults in one run are as good as one in each, and cost less. */
const spread = (steps: readonly Step[], runs: number): Step[][] =>
  Array.from({ length: runs }, (_, run) => steps.filter((_step, at) => at % runs === run));
const withFault = (name: Step, fault: Omit<Fault, 'times'> & { times?: number }) => ({
  diskCount: 1,
  faults: { [name]: { times: 1, ...fault } },
});
const warningsOf = ({ state }: Ended): string[] =>
  state.recorded!.findings.filter(({ level }) => level === 'warning').map(({ message }) => message);

describe('vmBackup, step by step', () => {
  it('goes the whole way in the order of the design', async () => {
    const { status, state } = await play.backUp({});
    expect(status).toBe('COMPLETED');
    const recorded = expectNothingLeft(state, 'success');
    expect(recorded).toMatchObject({ result: 'Success', consistency: 'filesystem', findings: [] });
    const order = state.calls.filter((name, at) => state.calls.indexOf(name) === at);
    const stageOf = (name: string): number =>
      allSteps.findIndex((step) => step === (together.find((some) => some.some((one) => one === name))?.[0] ?? name));
    expect(order.toSorted()).toEqual(allSteps.toSorted());
    expect(order.map(stageOf)).toEqual(order.map(stageOf).toSorted((a, b) => a - b));
    expect(recorded.disks).toMatchObject([
      { diskKey: 'd0', mode: 'full', proxyId: 'p1', readBytes: 10, sentBytes: 5 },
      { diskKey: 'd1' },
    ]);
    expect(state.recordedStep).toBe('done');
  });

  it.each(['before', 'reply'] as const)(
    'leaves nothing when a step before the seal fails for good (%s)',
    async (at) => {
      await forEachStep(sampled(beforeTheSeal, 8), async (name) => {
        const { status, state, error } = await play.backUp({ scene: withFault(name, { at, code: 'BAD_DISK' }) });
        const recorded = expectNothingLeft(state, `${name} ${at}`);
        expect(status, name).toBe('FAILED');
        expect(recorded.error, name).toMatchObject({ code: 'BAD_DISK', hint: expect.stringMatching(/\.$/) });
        // The session learns all of it from the failure.
        expect(error, name).toMatchObject({ type: 'BAD_DISK', details: [recorded] });
        expect(state.recordedStep, name).not.toMatch(/undoing|done/);
      });
    },
  );

  it('only goes forward once it is sealed, whatever fails for good then', async () => {
    const code = 'BAD_DISK';
    await forEachStep(
      ['commitReferencePoint', 'completeGuest', 'recordRestorePoint', 'releaseResources'],
      async (name) => {
        const ended = await play.backUp({ scene: withFault(name, { at: 'before', code, times: 99 }) });
        const { status, state } = ended;
        expect(status, name).toBe('COMPLETED');
        expect(state.recorded, name).toMatchObject({ result: 'Warning', error: null });
        expect(state).toMatchObject({ point: 'sealed', checkpoint: false, broken: [] });
        expect(warningsOf(ended), name).toEqual([expect.stringContaining(`${name} failed as asked`)]);
        // What was not done is exactly what is left.
        expect(state.referencePoints.length, name).toBe(name === 'commitReferencePoint' ? 2 : 1);
        expect(state.recordedPoint, name).toBe(name !== 'recordRestorePoint');
        expect(state.leases.length > 0, name).toBe(name === 'releaseResources');
      },
    );
  });

  it('goes on when steps fail once and may be tried again', async () => {
    await Promise.all(
      spread(allSteps, 4).map(async (names) => {
        const faults = Object.fromEntries(names.map((name) => [name, { at: 'reply', times: 1 } as const]));
        const { status, state } = await play.backUp({ scene: { diskCount: 1, faults } });
        expect(expectNothingLeft(state, names.join()).result, names.join()).toBe('Success');
        expect(status, names.join()).toBe('COMPLETED');
        for (const name of names) expect(state.calls.filter((each) => each === name).length).toBeGreaterThan(1);
      }),
    );
  });

  it('goes on when whoever does a step is lost over it', async () => {
    await Promise.all(
      sampled(spread(allSteps, 7), 3).map(async (names) => {
        const faults = Object.fromEntries(names.map((name) => [name, { at: 'lost', times: 1 } as const]));
        const bound = (name: Step) => ('heartbeat' in activityBounds[name] ? { beatMs: 4000 } : { attemptMs: 4000 });
        const activities = Object.fromEntries(names.map((name) => [name, bound(name)]));
        const { status, state } = await play.backUp({ scene: { diskCount: 1, faults }, quick: { activities } });
        expect(expectNothingLeft(state, names.join()).result, names.join()).toBe('Success');
        expect(status, names.join()).toBe('COMPLETED');
        expect(state.fences).toEqual({ d0: names.includes('transferDisk') ? [1, 2] : [1] });
      }),
    );
  });

  it('names who was lost over a step when nobody else comes', async () => {
    const told = {
      prepareGuest: 'prepareGuest: host h1 was lost over it (no heartbeat)',
      connectMovers: 'connectMovers: proxy p1 did not end it in time',
      declareDisks: 'declareDisks: repository main did not end it in time',
      startVm: 'startVm: the control worker did not end it in time',
    };
    await forEachStep(Object.keys(told) as (keyof typeof told)[], async (name) => {
      const quick = { activities: { [name]: { beatMs: 1000, attemptMs: 1000, attempts: 1 } } };
      const { state } = await play.backUp({
        scene: withFault(name, { at: 'lost' }),
        quick: name === 'prepareGuest' ? { activities: { prepareGuest: { beatMs: 1000, attempts: 1 } } } : quick,
      });
      const { error } = expectNothingLeft(state, name);
      expect(error, name).toMatchObject({ code: 'UNREACHABLE', message: told[name as keyof typeof told] });
    });
  });

  it('takes everything back when it is cancelled before the seal, and nothing from there on', async () => {
    await forEachStep(sampled(allSteps, 8), async (name) => {
      const during = { name, act: (of: { cancel(): Promise<unknown> }) => of.cancel() };
      const { status, state } = await play.backUp({ scene: withFault(name, { at: 'late' }), during });
      const recorded = expectNothingLeft(state, name);
      const isSealed = !(beforeTheSeal as readonly Step[]).includes(name);
      expect(status, name).toBe(isSealed ? 'COMPLETED' : 'CANCELLED');
      expect(recorded.error?.code ?? null, name).toBe(isSealed ? null : 'STOPPED');
    });
  });

  it('interrupts what listens, and takes everything back', async () => {
    const listening = ['acquireResources', 'prepareGuest', 'createCheckpoint', 'transferDisk'] as const;
    await forEachStep(listening, async (name) => {
      const during = { name, act: (of: { cancel(): Promise<unknown> }) => of.cancel() };
      // Both disks are in transfer.
      const scene = { ...withFault(name, { at: 'hang', times: name === 'transferDisk' ? 2 : 1 }), diskCount: 2 };
      const { status, state } = await play.backUp({ scene, during });
      expectNothingLeft(state, name);
      expect(status, name).toBe('CANCELLED');
    });
  });
});

// These wait more than they work.
describe.concurrent('vmBackup', () => {
  it('goes forward when the answer of the seal never arrives', async () => {
    const quick = { activities: { sealRestorePoint: { attempts: 1, beatMs: 1000 } } };
    const ended = await play.backUp({ scene: withFault('sealRestorePoint', { at: 'lost' }), quick });
    expect(ended.status).toBe('COMPLETED');
    expect(expectNothingLeft(ended.state, 'sealed')).toMatchObject({ result: 'Warning', error: null });
    expect(warningsOf(ended)).toEqual([
      expect.stringMatching(/sealed before this happened.*repository main was lost over it/),
    ]);
    expect(ended.state.calls).not.toContain('discardReferencePoint');
  });

  it('keeps both reference points when the repository does not decide', async () => {
    const faults = {
      transferDisk: { at: 'before', code: 'BAD_DISK', times: 2 },
      abortRestorePoint: { at: 'before', code: 'STORAGE_ERROR', times: 99 },
    } as const;
    const ended = await play.backUp({ scene: { faults } });
    const { state } = ended;
    expect(state.recorded).toMatchObject({ result: 'Failed', error: { code: 'BAD_DISK' } });
    expect(state.referencePoints).toEqual(['base', state.recorded!.run]);
    expect(state).toMatchObject({ checkpoint: false, leases: [], frozen: false, broken: [] });
    expect(warningsOf(ended)).toEqual([
      expect.stringMatching(/the restore point could not be taken back.*Left behind/),
    ]);
  });

  it('hides neither the reason nor the other undos behind an undo that fails', async () => {
    const undos = ['releaseCheckpoint', 'discardReferencePoint', 'releaseResources'] as const;
    await forEachStep(undos, async (name) => {
      const faults = {
        transferDisk: { at: 'before', code: 'BAD_DISK', times: 2 },
        [name]: { at: 'before', code: 'NOT_OURS', times: 99 },
      } as const;
      const ended = await play.backUp({ scene: { faults } });
      const { state } = ended;
      expect(state.recorded!.error?.code, name).toBe('BAD_DISK');
      expect(warningsOf(ended), name).toEqual([expect.stringContaining('could not be taken back')]);
      expect(state, name).toMatchObject({ point: 'aborted', frozen: false });
      expect(state.leases.length, name).toBe(name === 'releaseResources' ? 4 + 2 : 0);
    });
  });

  it('thaws before it asks anybody else, when the thaw itself failed', async () => {
    const { state } = await play.backUp({ scene: withFault('thawGuest', { at: 'before', code: 'BAD_DISK' }) });
    expectNothingLeft(state, 'thaw');
    const undone = state.calls.slice(state.calls.lastIndexOf('thawGuest'));
    expect(undone.slice(0, 4)).toEqual([
      'thawGuest',
      'releaseCheckpoint',
      'abortRestorePoint',
      'discardReferencePoint',
    ]);
  });

  it('gives each try of a transfer a fence of its own, at most five', async () => {
    const scene = withFault('transferDisk', { at: 'before', code: 'TRANSFER_FAILED', times: 99 });
    const { state } = await play.backUp({ scene, quick: { timersBy: 100 } });
    expect(expectNothingLeft(state, 'five').error?.code).toBe('TRANSFER_FAILED');
    expect(state.fences).toEqual({ d0: [1, 2, 3, 4, 5] });
  });

  it.each([
    ['end by the bound of one try', { at: 'lost', times: 5 }, { attemptMs: 1000 }],
    ['are lost', { at: 'lost', times: 5 }, { beatMs: 1000 }],
    ['fail', { at: 'reply', code: 'TRANSFER_FAILED', times: 5 }, {}],
  ] as const)('goes on as long as each try brings a disk further, though they %s', async (_how, fault, bounds) => {
    const scene = { ...withFault('transferDisk', fault), ackedByTry: 3 };
    const quick = { timersBy: 100, activities: { transferDisk: bounds } };
    const { state } = await play.backUp({ scene, quick });
    expect(expectNothingLeft(state, 'further').result).toBe('Success');
    expect(state.fences).toEqual({ d0: [1, 2, 3, 4, 5, 6] });
  });

  it('counts tries that end by their bound and bring a disk no further', async () => {
    const scene = withFault('transferDisk', { at: 'lost', times: 99 });
    const quick = { timersBy: 100, activities: { transferDisk: { attemptMs: 1000 } } };
    const { state } = await play.backUp({ scene, quick });
    expect(expectNothingLeft(state, 'no further').error?.code).toBe('UNREACHABLE');
    expect(state.fences).toEqual({ d0: [1, 2, 3, 4, 5] });
  });

  it('compares a disk whose tracking is lost while its changes are read, and says so', async () => {
    const scene = { ...withFault('transferDisk', { at: 'before', code: 'TRACKING_LOST' }), use: 'changes' as const };
    const ended = await play.backUp({ scene });
    const recorded = expectNothingLeft(ended.state, 'tracking');
    expect(ended.state.modes).toEqual(['cbt', 'comparison']);
    expect(recorded).toMatchObject({ result: 'Warning', disks: [{ mode: 'comparison' }] });
    expect(warningsOf(ended)).toEqual([expect.stringContaining('disk d0 is read by comparison')]);
  });

  it('warns of a disk that is smaller than in its last restore point', async () => {
    const ended = await play.backUp({ scene: { use: 'changes', baseBytes: 3 << 20, diskCount: 1 } });
    const recorded = expectNothingLeft(ended.state, 'shrunk');
    expect(recorded).toMatchObject({ result: 'Warning', findings: [{ level: 'warning', code: 'DISK_SHRUNK' }] });
    expect(warningsOf(ended)).toEqual([expect.stringMatching(/^disk d0 .* from 3.0 MiB .* to 1.0 MiB /)]);
  });

  it('compares a disk whose tracking an audit finds wrong, and tells the catalog what that makes suspect', async () => {
    const scene = { ...withFault('transferDisk', { at: 'before', code: 'AUDIT_MISMATCH' }), use: 'changes' as const };
    const ended = await play.backUp({ scene });
    const recorded = expectNothingLeft(ended.state, 'audit');
    expect(ended.state.modes).toEqual(['cbt', 'comparison']);
    expect(recorded).toMatchObject({ result: 'Warning', disks: [{ mode: 'comparison' }] });
    expect(recorded.findings.filter(({ level }) => level === 'warning').map(({ code }) => code)).toEqual([
      'AUDIT_MISMATCH',
    ]);
    expect(ended.state.suspects).toEqual([pointId(1)]);
    // The checkpoint does not wait for the catalog.
    const { calls } = ended.state;
    expect(calls.indexOf('recordSuspects')).toBeGreaterThan(calls.indexOf('sealRestorePoint'));
  });

  it('says so when the catalog cannot be told what is suspect', async () => {
    const faults = {
      transferDisk: { at: 'before', code: 'AUDIT_MISMATCH', times: 1 },
      listSuspects: { at: 'before', code: 'BAD_REQUEST', times: 99 },
    } as const;
    const ended = await play.backUp({ scene: { faults, use: 'changes', diskCount: 1 } });
    expect(expectNothingLeft(ended.state, 'untold').result).toBe('Warning');
    expect(warningsOf(ended)).toEqual([
      expect.stringContaining('disk d0 is read by comparison'),
      expect.stringContaining('does not show yet which restore points are suspect'),
    ]);
  });

  it('takes its resources again when their leases are lost', async () => {
    // They are asked for when they are old, or something went wrong.
    const faults = {
      transferDisk: { at: 'before', code: 'TRANSFER_FAILED', times: 1 },
      confirmLeases: { at: 'before', code: 'LEASE_LOST', times: 1 },
    } as const;
    const { state } = await play.backUp({ scene: { diskCount: 1, faults } });
    expect(expectNothingLeft(state, 'leases').result).toBe('Success');
    expect(state.calls.filter((name) => name === 'acquireResources')).toHaveLength(2);
  });

  it('runs no more disks at once than it has pairs', async () => {
    const scene = { diskCount: 5, pairs: 2, faults: { transferDisk: { at: 'late', times: 5 } } } as const;
    const act = async ({ workflowId }: { workflowId: string }): Promise<void> => {
      while (play.world.of(workflowId).transfers.now < 2) await sleep(20);
    };
    const { state } = await play.backUp({ scene, vm: { diskCount: 5 }, during: { name: 'transferDisk', act } });
    expect(expectNothingLeft(state, 'pairs').disks).toHaveLength(5);
    expect(state.transfers.most).toBe(2);
  });

  it('leaves excluded disks out without a word of warning, and warns of those it could not take', async () => {
    const excluded = await play.backUp({ vm: { excludeDisks: [diskKey('d1')] } });
    expect(expectNothingLeft(excluded.state, 'excluded')).toMatchObject({
      result: 'Success',
      disks: [{ diskKey: 'd0' }],
      findings: [{ level: 'info', code: 'DISK_EXCLUDED' }],
    });
    const out = await play.backUp({ scene: { leftOut: ['d1'] } });
    expect(expectNothingLeft(out.state, 'left out')).toMatchObject({ result: 'Warning', disks: [{ diskKey: 'd0' }] });
    expect(warningsOf(out)).toEqual([expect.stringContaining('disk d1 is left out')]);
  });

  it('says in the result that the guest was processed less than asked', async () => {
    const ended = await play.backUp({ scene: { reached: 'crash' }, job: { consistency: 'prefer' } });
    expect(expectNothingLeft(ended.state, 'crash')).toMatchObject({ result: 'Warning', consistency: 'crash' });
    expect(warningsOf(ended)).toEqual([expect.stringContaining('no agent answers')]);
  });

  it('answers how far it is, and lets itself be skipped only before its checkpoint', async () => {
    const told: VmProgress[] = [];
    const at = async (name: Step): Promise<Ended> =>
      play.backUp({
        scene: withFault(name, { at: 'late' }),
        during: {
          name,
          act: async (handle) => {
            told.push(await handle.query<VmProgress>(queryNames.vmProgress));
            await handle.signal(signalNames.stop);
          },
        },
      });
    const early = await at('prepareGuest');
    expect(early).toMatchObject({ status: 'FAILED', error: { type: 'STOPPED' } });
    expectNothingLeft(early.state, 'skipped');
    const late = await at('transferDisk');
    expect(late.status).toBe('COMPLETED');
    expectNothingLeft(late.state, 'let finish');
    expect(told).toMatchObject([
      { step: 'preparing-guest', waitsFor: null, disks: [] },
      { step: 'transferring', disks: [{ mode: 'full', proxyId: 'p1', state: 'transferring' }] },
    ]);
  });
});
