import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { plannedVm, type Play } from '../tests/fixtures/workflows/play.ts';
import { startPlay } from '../tests/fixtures/workflows/start-play.ts';

let play: Play;
beforeAll(async () => {
  play = await startPlay();
});
afterAll(() => play?.close());

describe('retention after a session', () => {
  const policy = {
    count: 7,
    days: null,
    weekly: null,
    monthly: null,
    yearly: null,
    minimum: 3,
    deletedVmDays: null,
    timeZone: 'UTC',
  };
  const vms = [0, 1].map((position) => plannedVm(position, { diskCount: 1 }));

  it('is of the VMs that were sealed, and of a job that has one', async () => {
    play.world.jobRules = { retention: policy };
    const faults = ({ position }: (typeof vms)[0]) =>
      position === 1 ? { inspectVm: { at: 'before' as const, code: 'BAD_DISK' as const, times: 9 } } : {};
    const ended = await play.session({ vms, faults });
    const { retained } = play.world.of(ended.handle.workflowId);
    expect(retained.map(({ vmName }) => vmName)).toEqual(['vm-0']);
    play.world.jobRules = {};
    const without = await play.session({ vms });
    expect(play.world.of(without.handle.workflowId).calls).not.toContain('applyRetention');
  });

  it('asks until all of it is told', async () => {
    play.world.jobRules = { retention: policy };
    const ended = await play.session({
      vms: vms.slice(0, 1),
      during: {
        name: 'transferDisk',
        act: async ({ workflowId }) => {
          await Promise.resolve();
          play.world.prepare(workflowId, { retainedInParts: true });
        },
      },
    });
    play.world.jobRules = {};
    const { calls, retained } = play.world.of(ended.handle.workflowId);
    expect(calls.filter((name) => name === 'applyRetention')).toHaveLength(2);
    // The other part has nothing that is to be recorded.
    expect(retained.map(({ decisions }) => decisions.length)).toEqual([1]);
  });

  it('of a VM that it leaves alone makes the session a Warning, which says why', async () => {
    play.world.jobRules = { retention: policy };
    const doubt = { code: 'RESTORE_POINT_DATE', message: 'restore point p is dated 2031' };
    const ended = await play.session({
      vms,
      during: {
        name: 'transferDisk',
        act: async ({ workflowId }) => {
          await Promise.resolve();
          play.world.prepare(workflowId, { doubt });
        },
      },
    });
    play.world.jobRules = {};
    expect(ended).toMatchObject({ status: 'COMPLETED', rows: { result: 'Warning' } });
    const message = (name: string) =>
      `retention removes nothing of VM ${name}: restore point p is dated 2031; remove by hand what is dated so, or wait until then`;
    expect(play.world.of(ended.handle.workflowId).findings).toEqual(
      ['vm-0', 'vm-1'].map((name) => ({ level: 'warning', code: doubt.code, message: message(name) })),
    );
  });

  it('never fails the session: the night does what it could not', async () => {
    play.world.jobRules = { retention: policy };
    const quick = { activities: { applyRetention: { attempts: 1 } } };
    const promise = play.session({
      vms: vms.slice(0, 1),
      quick,
      during: {
        name: 'transferDisk',
        act: async ({ workflowId }) => {
          await Promise.resolve();
          play.world.prepare(workflowId, {
            faults: { applyRetention: { at: 'before', code: 'STORAGE_ERROR', times: 9 } },
          });
        },
      },
    });
    const ended = await promise;
    play.world.jobRules = {};
    expect(ended).toMatchObject({ status: 'COMPLETED', rows: { result: 'Success' } });
    expect(play.world.of(ended.handle.workflowId).findings).toEqual([
      {
        level: 'info',
        code: 'STORAGE_ERROR',
        message: 'retention is left to the maintenance of the repository: applyRetention failed as asked',
      },
    ]);
  });
});
