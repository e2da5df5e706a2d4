import { describe, expect, test } from 'vitest';
import type { SessionDisk, SessionVm } from '../schema/catalog/sessions.ts';
import type { TransferHeartbeat, VmProgress } from '../schema/domain/sessions.ts';
import { liveVm, waitsOf } from './live-session.ts';
import type { PendingActivity, WorkflowPicture } from './temporal-access.ts';

const NOW = 1_000_000;
const activity = (part: Partial<PendingActivity>): PendingActivity => ({
  type: 'transferDisk',
  queue: 'proxy.p1',
  attempt: 1,
  isStarted: true,
  scheduledAt: NOW - 60_000,
  heartbeatAt: NOW - 1000,
  heartbeat: null,
  lastFailure: null,
  ...part,
});
const picture = (...pending: PendingActivity[]): WorkflowPicture => ({
  workflowId: 'w',
  runId: 'r',
  status: 'RUNNING',
  pending,
});
const beat = (part: Partial<TransferHeartbeat> = {}): TransferHeartbeat => ({
  disk: 'd0' as TransferHeartbeat['disk'],
  bytesDone: 400,
  bytesTotal: 1000,
  readBytes: 300,
  sentBytes: 200,
  readRateBytesPerSecond: 50,
  windowsAcked: 1,
  windowCount: 3,
  waitsFor: null,
  ...part,
});
const row = (part: Partial<SessionVm> = {}, disks: SessionDisk[] = []): SessionVm & { disks: SessionDisk[] } => ({
  vmId: 'v',
  name: 'web',
  hostId: 'h',
  position: 0,
  attempt: 1,
  runKey: 'k',
  workflowId: 'w',
  step: 'waiting',
  result: 'None',
  waitsFor: null,
  error: null,
  restorePointId: null,
  consistency: null,
  startedAt: null,
  endedAt: null,
  disks,
  ...part,
});
const disk = {
  diskKey: 'd0',
  mode: 'full',
  sizeBytes: 1000,
  readBytes: 0,
  sentBytes: 0,
  conservation: null,
  state: 'transferring',
};
const progress = (part: Partial<VmProgress> = {}): VmProgress =>
  ({
    run: 'k',
    step: 'transferring',
    waitsFor: null,
    restorePointId: null,
    disks: [disk],
    findings: [],
    ...part,
  }) as unknown as VmProgress;

describe('what a workflow waits for', () => {
  const wait = { position: 3, reason: { code: 'busy', message: 'position 3: proxy p1 is full' } };
  const fresh = { position: null, reason: { code: 'new', message: 'waits for the next grant pass' } };
  const waiting = { type: 'acquireResources', queue: 'control.wait' };
  const unstarted = { isStarted: false };
  test.each<[string, Partial<PendingActivity>, string]>([
    ['its place in line', { ...waiting, heartbeat: wait }, 'position 3: proxy p1 is full'],
    ['a wait that has just begun', { ...waiting, heartbeat: fresh }, 'waits for the next grant pass'],
    ['one that began anew', { ...waiting, heartbeat: fresh, lastFailure: 'position 4: x' }, 'position 4: x'],
    ['the failure of a wait', { ...waiting, lastFailure: 'vm is locked', attempt: 4 }, 'vm is locked'],
    [
      'a verb that fails',
      { type: 'sealRestorePoint', lastFailure: 'no answer', attempt: 3 },
      'sealRestorePoint: no answer, try 3',
    ],
    [
      'a host',
      { ...unstarted, type: 'inspectVm', queue: 'host.h-1.ctl' },
      'host h-1 does not take inspectVm for 1 min',
    ],
    ['control', { ...unstarted, type: 'recordVm', queue: 'control' }, 'no worker takes recordVm for 1 min'],
    ['a proxy, not for long', { ...unstarted, scheduledAt: NOW - 9000 }, 'proxy p1 does not take transferDisk'],
    ['nothing: it was just scheduled', { ...unstarted, scheduledAt: NOW - 100 }, ''],
    ['nothing: it runs', {}, ''],
  ])('%s', (_what, part, said) => {
    expect(waitsOf(picture(activity(part)), NOW)).toBe(said);
  });

  test('of several activities each is told, the same once', () => {
    const refused = activity({ lastFailure: 'refused', type: 'openAccess' });
    expect(waitsOf(picture(refused, refused, activity({ isStarted: false })), NOW)).toBe(
      'openAccess: refused; proxy p1 does not take transferDisk for 1 min',
    );
  });
});

describe('a VM in work', () => {
  test('takes step and sizes from its workflow, figures from heartbeats', () => {
    const stages = { source: 9, proxy: 1, throttling: 0, network: 0, target: 0 };
    const sources = {
      progress: progress(),
      picture: picture(activity({ heartbeat: beat({ waitsFor: 'target', stages }) })),
    };
    expect(liveVm(row(), sources, NOW)).toEqual({
      name: 'web',
      step: 'transferring',
      result: 'None',
      note: '',
      disks: [
        {
          diskKey: 'd0',
          bytesDone: 400,
          bytesTotal: 1000,
          readBytes: 300,
          sentBytes: 200,
          readRateBytesPerSecond: 50,
          waitsFor: 'target',
          stages,
        },
      ],
    });
  });

  test('a proxy that is silent has no rate', () => {
    const old = picture(activity({ heartbeat: beat(), heartbeatAt: NOW - 25_000 }));
    const [shown] = liveVm(row(), { progress: progress(), picture: old }, NOW).disks;
    expect(shown).toMatchObject({ readRateBytesPerSecond: 0, waitsFor: 'its proxy, silent' });
  });

  test('a disk that is done is whole, whatever the last heartbeat said', () => {
    const done = progress({ disks: [{ ...disk, state: 'done', readBytes: 800 }] as never });
    const [shown] = liveVm(row(), { progress: done, picture: picture(activity({ heartbeat: beat() })) }, NOW).disks;
    expect(shown).toMatchObject({ bytesDone: 1000, readBytes: 800, readRateBytesPerSecond: 0, waitsFor: '' });
  });

  test('without answers the rows are shown', () => {
    const known = { diskKey: 'd0', sizeBytes: 1000, doneBytes: 70, readBytes: 60, sentBytes: 5, conservation: null };
    const live = liveVm(row({ waitsFor: 'a slot' }, [known as SessionDisk]), { progress: null, picture: null }, NOW);
    expect(live).toMatchObject({ step: 'waiting', note: 'a slot', disks: [{ bytesDone: 70, readBytes: 60 }] });
  });

  test('one that has ended shows its error, and no old heartbeat', () => {
    const error = { code: 'VM_OFF', message: 'the VM is off', hint: '' };
    const known = { diskKey: 'd0', sizeBytes: 1000, doneBytes: 0, readBytes: 10, sentBytes: 5, conservation: null };
    const ended = row({ result: 'Failed', step: 'transferring', error }, [known as SessionDisk]);
    const live = liveVm(ended, { progress: null, picture: picture(activity({ heartbeat: beat() })) }, NOW);
    expect(live).toMatchObject({ result: 'Failed', note: 'the VM is off', disks: [{ bytesDone: 0, readBytes: 10 }] });
  });
});
