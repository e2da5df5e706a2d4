import { randomUUID } from 'node:crypto';
import type { WorkflowHandle } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Activities } from '../activities/contract.ts';
import { diskKey, restorePointId, sessionId } from '../schema/domain/ids.ts';
import {
  queryNames,
  type RestoreProgressView,
  type RestoreSessionInput,
  restoreSessionWorkflowId,
} from '../schema/domain/sessions.ts';
import type { RunState, Scene, SessionRows } from '../tests/fixtures/workflows/fake-world.ts';
import { detailsOf, type Ended, type Play } from '../tests/fixtures/workflows/play.ts';
import { startPlay } from '../tests/fixtures/workflows/start-play.ts';
import type { QuickTime } from '../tests/fixtures/workflows/quick-time.ts';

let play: Play;
beforeAll(async () => {
  play = await startPlay();
});
afterAll(() => play?.close());

type Step = keyof Activities;
type Options = {
  scene?: Partial<Scene>;
  input?: Partial<RestoreSessionInput>;
  quick?: QuickTime;
  during?: { name: Step; act: (of: WorkflowHandle) => Promise<unknown> };
};

async function restore({
  scene = {},
  input = {},
  quick,
  during,
}: Options): Promise<Ended & { rows: SessionRows; handle: WorkflowHandle }> {
  const id = sessionId(randomUUID());
  const whole: RestoreSessionInput = {
    version: 1,
    sessionId: id,
    restorePointId: restorePointId('0'.repeat(32)),
    disks: null,
    format: 'raw',
    folder: '/restores',
    name: null,
    proxyId: null,
    ...input,
  };
  const workflowId = restoreSessionWorkflowId(id);
  play.world.prepare(workflowId, scene);
  const handle = await play.start('restoreSession', workflowId, whole, quick);
  if (during) {
    await play.world.entered(workflowId, during.name);
    await during.act(handle);
    play.world.letGoOn(workflowId);
  }
  return { ...(await play.ended(handle)), rows: play.world.session(id), handle };
}

function expectNothingLeft({ leases, targets, transfers, broken }: RunState, isDone: boolean, note = ''): void {
  expect(broken, note).toEqual([]);
  expect({ leases, targets, running: transfers.now }, note).toEqual({
    leases: [],
    targets: isDone ? 'finished' : 'none',
    running: 0,
  });
}

const cancel = (of: WorkflowHandle): Promise<unknown> => of.cancel();
const beforeTheFiles: Step[] = ['acquireResources', 'openRestore', 'createTargets', 'restoreDisk'];

describe.concurrent('restoreSession', () => {
  it('restores all disks and names them when all are whole', async () => {
    const { status, state, rows, handle } = await restore({});
    expect(status).toBe('COMPLETED');
    expectNothingLeft(state, true);
    expect(rows).toMatchObject({ result: 'Success', error: null, states: ['Starting', 'Stopped'] });
    expect(state.restored!.disks.map(({ file }) => file)).toEqual(['/d0', '/d1']);
    expect(state.restored!.disks.map(({ stages }) => stages?.target)).toEqual([8, 8]);
    expect(new Set(state.restored!.disks.map(({ proxyId }) => proxyId))).toEqual(new Set(['p1']));
    expect(await detailsOf(handle)).toContain(
      'bottleneck: **target 80%** (Source 10% > Network 0% > Proxy 10% > Target 80%)',
    );
    const order = state.calls.filter((name, at) => state.calls.indexOf(name) === at);
    expect(order).toEqual(
      `startRestore acquireResources openRestore createTargets restoreDisk finishTargets releaseResources
       recordRestore updateSession`.split(/\s+/),
    );
  });

  it('warns of a restore point that is suspect', async () => {
    const { status, state, rows } = await restore({ scene: { suspect: true } });
    expect(status).toBe('COMPLETED');
    expect(rows.result).toBe('Warning');
    expect(state.restored!.findings).toMatchObject([{ level: 'warning', code: 'DAMAGED_BLOCK' }]);
  });

  it('leaves no file and no lease when a step fails for good', async () => {
    await Promise.all(
      [...beforeTheFiles, 'finishTargets' as const].map(async (name) => {
        const faults = { [name]: { at: 'before', code: 'BAD_DISK', times: 2 } } as const;
        const { status, state, rows, error } = await restore({ scene: { faults } });
        expect(status, name).toBe('FAILED');
        expect(error, name).toMatchObject({ type: 'BAD_DISK' });
        expectNothingLeft(state, false, name);
        expect(rows, name).toMatchObject({ result: 'Failed', error: { code: 'BAD_DISK' } });
        expect(state.restored!.disks, name).toEqual([]);
      }),
    );
  });

  it('goes on when a step is done and its answer lost, and knows its files all the same', async () => {
    await Promise.all(
      [...beforeTheFiles, 'finishTargets' as const].map(async (name) => {
        const faults = { [name]: { at: 'reply', times: 1 } } as const;
        const { status, state } = await restore({ scene: { faults } });
        expect(status, name).toBe('COMPLETED');
        expectNothingLeft(state, true, name);
        const files = state.restored!.disks.map(({ file }) => file);
        expect(files, name).toEqual(['/d0', '/d1']);
        // What the proxy had opened may have died with it.
        if (name === 'restoreDisk') expect(state.calls.filter((each) => each === 'createTargets')).toHaveLength(2);
        // The grant of the try before may have ended meanwhile.
        if (name === 'restoreDisk') expect(state.calls.filter((each) => each === 'openRestore')).toHaveLength(2);
      }),
    );
  });

  it('takes everything back when it is cancelled before its files have their names', async () => {
    await Promise.all(
      [...beforeTheFiles, 'finishTargets' as const].map(async (name) => {
        const faults = { [name]: { at: 'late', times: 2 } } as const;
        const { status, state, rows } = await restore({ scene: { faults }, during: { name, act: cancel } });
        const isDone = name === 'finishTargets';
        expect(status, name).toBe(isDone ? 'COMPLETED' : 'CANCELLED');
        expectNothingLeft(state, isDone, name);
        expect(rows, name).toMatchObject(
          isDone ? { result: 'Success', error: null } : { result: 'Failed', error: { code: 'STOPPED' } },
        );
      }),
    );
  });

  it('names no file that went away: whether a disk is tried again after that, or none', async () => {
    const lost = { at: 'reply', code: 'TRANSFER_FAILED', times: 1 } as const;
    const scenes: Partial<Scene>[] = [
      { emptyAt: 'createTargets', faults: { restoreDisk: lost } },
      { emptyAt: 'finishTargets' },
      { emptyAt: 'finishTargets', oldProxies: true },
    ];
    await Promise.all(
      scenes.map(async (scene) => {
        const { status, state, rows } = await restore({ scene: { pairs: 1, ...scene }, quick: { timersBy: 100 } });
        expect(status).toBe('FAILED');
        expectNothingLeft(state, false);
        expect(rows).toMatchObject({ result: 'Failed', error: { code: 'STORAGE_ERROR' } });
        expect(state.restored!.disks).toEqual([]);
      }),
    );
  });

  it('gives up after five tries of a disk, and answers how far it is', async () => {
    const faults = { restoreDisk: { at: 'before', code: 'TRANSFER_FAILED', times: 99 } } as const;
    const input = { disks: ['d0' as never] };
    const told: RestoreProgressView[] = [];
    const act = async (of: WorkflowHandle): Promise<void> => {
      told.push(await of.query<RestoreProgressView>(queryNames.restoreProgress));
    };
    const during = { name: 'restoreDisk', act } as const;
    const { state, rows } = await restore({ scene: { faults }, input, quick: { timersBy: 100 }, during });
    expectNothingLeft(state, false);
    expect(rows.error).toMatchObject({ code: 'TRANSFER_FAILED' });
    expect(state.calls.filter((name) => name === 'restoreDisk')).toHaveLength(5);
    expect(told).toMatchObject([{ step: 'transferring', waitsFor: null, disks: [{ diskKey: 'd0' }] }]);
  });

  it('has a grant for each disk, made when its turn has come, and for each try', async () => {
    const scene = { pairs: 1, shortGrants: true };
    const input = { disks: ['d0', 'd1', 'd2'].map(diskKey) };
    const { status, state } = await restore({ scene, input });
    expect(status).toBe('COMPLETED');
    const count = (name: Step): number => state.calls.filter((each) => each === name).length;
    // None was refused: each began with what was granted after the disk before it.
    expect([count('openRestore'), count('restoreDisk')]).toEqual([3, 3]);
    const faults = { restoreDisk: { at: 'reply', code: 'PEER_REFUSED', times: 1 } } as const;
    const { status: second, state: again } = await restore({
      scene: { ...scene, faults },
      input,
      quick: { timersBy: 100 },
    });
    expect(second).toBe('COMPLETED');
    expect(again.calls.filter((each) => each === 'restoreDisk')).toHaveLength(4);
  });

  it('uses one proxy, and gives slots of others back at once', async () => {
    const scene = { proxies: ['p1', 'p2'], faults: { restoreDisk: { at: 'late', times: 2 } } } as const;
    let held = -1;
    const act = async (of: WorkflowHandle): Promise<void> => {
      held = play.world.of(of.workflowId).leases.length;
    };
    const { status, state } = await restore({
      scene: { ...scene, proxies: [...scene.proxies] },
      during: { name: 'restoreDisk', act },
    });
    expect(status).toBe('COMPLETED');
    expect(held).toBe(2);
    expect(state.transfers.most).toBe(1);
    expectNothingLeft(state, true);
  });

  it('fails by the code of what keeps it from starting', async () => {
    const { status, error, rows } = await restore({ input: { folder: '/forbidden' } });
    expect(status).toBe('FAILED');
    expect(error).toMatchObject({ type: 'TARGET_NOT_ALLOWED' });
    expect(rows.states).toEqual([]);
  });
});
