import { beforeEach, describe, expect, it, vi } from 'vitest';
import { jobId, runKey, sessionId, siteId, type VmId } from '../schema/domain/ids.ts';
import type { BackupSessionInput, PlannedVm, VmBackupInput, VmBackupResult } from '../schema/domain/sessions.ts';
import { noStageTimes } from '../schema/domain/stages.ts';
import { job } from '../tests/fixtures/workflows/fake-control.ts';
import { plannedVm } from '../tests/fixtures/workflows/play.ts';
import { SessionRun } from './session-run.ts';
import { runVms } from './session-vms.ts';

/** What Temporal's UI was given, and how the children end. */
const temporal = vi.hoisted(() => ({
  shown: [] as string[],
  end: (_input: unknown): Promise<unknown> => Promise.reject(new Error('no child is expected')),
}));
vi.mock('@temporalio/workflow', async (original) => ({
  ...(await original<object>()),
  CancellationScope: { current: () => ({ consideredCancelled: false }) },
  workflowInfo: () => ({ workflowId: 'backup-session/nightly/s', startTime: new Date(0) }),
  setCurrentDetails: (details: string) => void temporal.shown.push(details),
  upsertSearchAttributes: () => undefined,
  startChild: async (_type: string, { args: [input] }: { args: [unknown] }) => ({ result: () => temporal.end(input) }),
}));

const input: BackupSessionInput = {
  version: 1,
  sessionId: sessionId('s'),
  jobId: jobId('nightly'),
  startedBy: 'manual',
  nominalTime: null,
  retryOf: null,
};
const resultOf = (vmId: VmId, result: VmBackupResult['result']): VmBackupResult => ({
  vmId,
  run: runKey('abcdefghij01'),
  result,
  restorePointId: null,
  consistency: 'crash',
  disks: [],
  findings: [],
  error: result === 'Failed' ? { code: 'BAD_DISK', message: 'm', hint: 'h' } : null,
  startedAt: '',
  endedAt: '',
});
const sessionOf = (vms: readonly PlannedVm[]): SessionRun => {
  const run = new SessionRun(input);
  run.started = { site: siteId('s1'), job: { ...job, vms: [], maxParallelVms: 250 } };
  run.tally.plan(vms);
  return run;
};
const rowsOf = (details: string | undefined): string[] =>
  (details ?? '').split('\n').filter((line) => line.startsWith('| vm-'));

beforeEach(() => {
  temporal.shown.length = 0;
});

describe('what a session shows', () => {
  it('costs the same for each VM that begins or ends, however many there are', async () => {
    const count = 2000;
    let looks = 0;
    const vms = Array.from({ length: count }, (_, position) => {
      const vm = plannedVm(position);
      // Read once to begin it, and once for each row of it that is made.
      return Object.defineProperty(vm, 'name', { get: () => ((looks += 1), `vm-${position}`), enumerable: true });
    });
    temporal.end = async (of) => resultOf((of as VmBackupInput).vm.vm.vmId, 'Success');
    const run = sessionOf(vms);
    await runVms(run, vms, 1);
    await Promise.resolve();
    expect(temporal.shown.length).toBeLessThanOrEqual(2 * count);
    // A row is made when it is shown first, and when its VM has begun and has ended.
    expect(looks).toBeLessThanOrEqual(4 * count);
    expect(temporal.shown.at(-1)).toContain(`${count} of ${count} VMs done, 0 in work`);
    expect(temporal.shown.at(-1)).toContain(`and ${count - 50} more`);
  });

  it('is drawn once for all that ends at a time', async () => {
    const vms = Array.from({ length: 250 }, (_, position) => plannedVm(position));
    let endAll = (): void => undefined;
    const atOnce = new Promise<void>((resolve) => (endAll = resolve));
    temporal.end = async (of) => {
      await atOnce;
      return resultOf((of as VmBackupInput).vm.vm.vmId, 'Success');
    };
    const run = sessionOf(vms);
    const ended = runVms(run, vms, 1);
    await new Promise(setImmediate);
    expect(temporal.shown).toHaveLength(1);
    expect(temporal.shown[0]).toContain('0 of 250 VMs done, 250 in work');
    endAll();
    await ended;
    expect(temporal.shown).toHaveLength(2);
    expect(temporal.shown[1]).toContain('250 of 250 VMs done, 0 in work');
  });

  it('has failed VMs first, then those in work, then the others', async () => {
    const vms = Array.from({ length: 60 }, (_, position) => plannedVm(position));
    const run = sessionOf(vms);
    const { tally } = run;
    const idOf = (position: number): VmId => vms[position]!.vm.vmId;
    tally.end(idOf(0), resultOf(idOf(0), 'Success'));
    tally.end(idOf(40), resultOf(idOf(40), 'Failed'));
    tally.end(idOf(30), resultOf(idOf(30), 'Failed'));
    tally.begin(idOf(50), 1);
    tally.begin(idOf(30), 2);
    run.show();
    await Promise.resolve();
    const rows = rowsOf(temporal.shown.at(-1));
    expect(rows).toHaveLength(50);
    expect(rows.slice(0, 5)).toEqual([
      '| vm-40 | h1 | Failed | crash |  | BAD_DISK: m |',
      '| vm-30 | h1 | in work, try 2 | crash |  | BAD_DISK: m |',
      '| vm-50 | h1 | in work, try 1 |  |  |  |',
      '| vm-0 | h1 | Success | crash |  |  |',
      '| vm-1 | h1 | waits |  |  |  |',
    ]);
    tally.end(idOf(30), resultOf(idOf(30), 'Success'));
    run.show();
    await Promise.resolve();
    expect(
      rowsOf(temporal.shown.at(-1))
        .slice(0, 3)
        .map((row) => row.slice(0, 7)),
    ).toEqual(['| vm-40', '| vm-50', '| vm-0 ']);
  });

  it('counts the time of a VM that was tried again once', async () => {
    const vm = plannedVm(0);
    const run = sessionOf([vm]);
    const { vmId } = vm.vm;
    const took = (stages: object): VmBackupResult =>
      ({
        ...resultOf(vmId, 'Success'),
        disks: [{ stages: { ...noStageTimes, ...stages } }],
      }) as unknown as VmBackupResult;
    run.tally.end(vmId, took({ network: 900 }));
    expect(run.tally.flow()[0]).toContain('bottleneck: **network 100%**');
    run.tally.end(vmId, took({ source: 100 }));
    expect(run.tally.flow()).toEqual(['bottleneck: **source 100%** (Source 100% > Proxy 0% > Network 0% > Target 0%)']);
  });
});
