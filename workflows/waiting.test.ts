import type { WorkflowHandle } from '@temporalio/client';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hostId, proxyId } from '../schema/domain/ids.ts';
import { hostCtlQueue, hostGuestQueue, hostUndoQueue, proxyCtlQueue, proxyQueue } from '../schema/domain/queues.ts';
import { queryNames, type VmProgress } from '../schema/domain/sessions.ts';
import { detailsOf, onHost, type Play } from '../tests/fixtures/workflows/play.ts';
import { expectNothingLeft, startPlay } from '../tests/fixtures/workflows/start-play.ts';

const HOUR = 3_600_000;

let play: Play;
beforeAll(async () => {
  play = await startPlay();
});
afterAll(() => play?.close());

const progressOf = (handle: WorkflowHandle): Promise<VmProgress> => handle.query<VmProgress>(queryNames.vmProgress);

async function waitsFor(handle: WorkflowHandle, text: RegExp): Promise<VmProgress> {
  for (;;) {
    const progress = await progressOf(handle);
    if (text.test(progress.waitsFor ?? '')) return progress;
    const { status } = await handle.describe();
    if (status.name !== 'RUNNING') throw new Error(`ended (${status.name}) without saying ${text}`);
    await sleep(100);
  }
}

describe.concurrent('waiting for a machine', () => {
  it('says for which and since when, and fails with its name once it is enough', async () => {
    play.world.silences.set(hostCtlQueue(hostId('gone')), HOUR);
    const handle = await play.startVm({ vm: onHost('gone'), job: { hostWaitMs: 8000 }, quick: { timersBy: 50 } });
    const { waitsFor: told } = await waitsFor(handle, /^waits for host gone, silent since /);
    const since = Date.parse(told!.replace(/.*since /, ''));
    expect(Math.abs(Date.now() - HOUR - since)).toBeLessThan(60_000);
    expect(await detailsOf(handle)).toContain(told);
    const { status, state } = await play.ended(handle);
    expect(status).toBe('FAILED');
    expect(expectNothingLeft(state, 'gone').error).toMatchObject({
      code: 'UNREACHABLE',
      message: 'inspectVm: host gone did not take it up in time',
      hint: expect.stringMatching(/\.$/),
    });
    expect(state.recordedStep).toBe('inspecting');
  });

  it('goes on when it comes back, and waits for nothing any more', async () => {
    const host = hostId('late');
    play.world.silences.set(hostCtlQueue(host), null);
    const scene = { faults: { transferDisk: { at: 'late', times: 2 } } } as const;
    const handle = await play.startVm({ scene, vm: onHost(host), quick: { timersBy: 50 } });
    await waitsFor(handle, /^waits for host late since .*: no worker of it is known$/);
    await Promise.all(
      [hostCtlQueue(host), hostGuestQueue(host), hostUndoQueue(host)].map((queue) => play.serve(queue)),
    );
    await play.world.entered(handle.workflowId, 'transferDisk');
    expect(await progressOf(handle)).toMatchObject({ step: 'transferring', waitsFor: null });
    await handle.cancel();
    play.world.letGoOn(handle.workflowId);
    expect((await play.ended(handle)).status).toBe('CANCELLED');
  });

  it('says it of the undo, too', async () => {
    play.world.silences.set(hostUndoQueue(hostId('h2')), HOUR);
    const [ctl, guest] = [hostCtlQueue(hostId('h2')), hostGuestQueue(hostId('h2'))];
    await Promise.all([play.serve(ctl), play.serve(guest)]);
    const scene = { faults: { transferDisk: { at: 'before', code: 'BAD_DISK', times: 2 } } } as const;
    const handle = await play.startVm({ scene, vm: onHost('h2'), quick: { timersBy: 50 } });
    expect(await waitsFor(handle, /^waits for host h2, silent since/)).toMatchObject({ step: 'undoing' });
    await play.serve(hostUndoQueue(hostId('h2')));
    expectNothingLeft((await play.ended(handle)).state, 'undone late');
  });
});

describe.concurrent('a proxy that does not take a transfer up', () => {
  const quick = { activities: { transferDisk: { startMs: 700 } } };
  const ofProxy = async (id: string, silentMs: number | null) => {
    const proxy = proxyId(id);
    play.world.silences.set(proxyQueue(proxy), silentMs);
    await play.serve(proxyCtlQueue(proxy));
    return { scene: { proxies: [id] }, queue: proxyQueue(proxy) };
  };

  it('is waited for by name while it is silent, and no longer than the job says', async () => {
    const { scene } = await ofProxy('p-gone', HOUR);
    const handle = await play.startVm({ scene, job: { hostWaitMs: 3000 }, quick });
    await waitsFor(handle, /^waits for proxy p-gone, silent since/);
    const { state } = await play.ended(handle);
    expect(expectNothingLeft(state, 'silent').error).toMatchObject({
      code: 'UNREACHABLE',
      message: 'transferDisk: proxy p-gone did not take it up in time',
    });
    // Each time with a fence of its own.
    for (const fences of Object.values(state.fences)) expect(new Set(fences).size).toBe(fences.length);
    expect(state.fences['d0']!.length).toBeGreaterThan(1);
  });

  it('gets it again as often as need be while it is there, and busy', async () => {
    const { scene, queue } = await ofProxy('p-busy', 0);
    const handle = await play.startVm({ scene, job: { hostWaitMs: 3000 }, quick });
    await waitsFor(handle, /^waits for proxy p-busy since .*: it is there, and busy$/);
    // Longer than a silent one is waited for.
    const tries = (): number => play.world.of(handle.workflowId).fences['d0']?.length ?? 0;
    while (tries() < 7) await sleep(100);
    await play.serve(queue);
    const { state } = await play.ended(handle);
    expect(expectNothingLeft(state, 'busy').result).toBe('Success');
    expect(state.fences['d0']!.length).toBeGreaterThan(1);
  });
});

describe.concurrent('a proxy that is silent in mid-transfer', () => {
  const quick = { timersBy: 10, activities: { transferDisk: { startMs: 1500, beatMs: 1000 } } };
  /** It has one slot, which what it lost over its first transfer holds: it takes nothing up any more. */
  const dying = async (id: string): Promise<string> => {
    const proxy = proxyId(id);
    play.world.silences.set(proxyQueue(proxy), HOUR);
    await Promise.all([play.serve(proxyQueue(proxy), 1), play.serve(proxyCtlQueue(proxy))]);
    return id;
  };
  /** Silent from the first. */
  const gone = async (id: string): Promise<string> => {
    play.world.silences.set(proxyQueue(proxyId(id)), HOUR);
    await play.serve(proxyCtlQueue(proxyId(id)));
    return id;
  };
  const ready = async (id: string): Promise<string> => {
    await Promise.all([proxyQueue(proxyId(id)), proxyCtlQueue(proxyId(id))].map((queue) => play.serve(queue)));
    return id;
  };
  const jobOf = (...ids: string[]) => ({ hostWaitMs: HOUR, proxies: ids.map((id) => proxyId(id)) });
  const lost = { transferDisk: { at: 'lost', times: 1 } } as const;

  it('is replaced by another, behind a fence of its own', async () => {
    const [dead, other] = [await dying('p-dead'), await ready('p-next')];
    const scene = { diskCount: 1, proxies: [dead], others: [dead, other], faults: lost };
    const { state } = await play.backUp({ scene, job: jobOf(dead, other), vm: { diskCount: 1 }, quick });
    const recorded = expectNothingLeft(state, 'replaced');
    expect(recorded).toMatchObject({ result: 'Success', disks: [{ proxyId: other }] });
    // What the dead one holds has the first fence, what was not taken up the second.
    expect(state.readers).toEqual([proxyQueue(proxyId(dead)), proxyQueue(proxyId(other))]);
    expect(state.fences['d0']!.at(-1)).toBeGreaterThan(2);
    expect(state.wanted[0]).toEqual({
      vmId: null,
      hostId: null,
      nearHostId: 'h1',
      proxies: [dead, other],
      excludedProxies: [dead],
      repositoryId: null,
      pairs: 1,
    });
    expect(recorded.findings.map(({ message }) => message)).toContain(
      `disk d0 goes on with another proxy: proxy ${dead} is silent`,
    );
  });

  it('leaves its disks to the one slot that another has', async () => {
    const [dead, other] = [await gone('p-dead-3'), await ready('p-one-slot')];
    const scene = { diskCount: 3, proxies: [dead], others: [other] };
    const { state } = await play.backUp({ scene, job: jobOf(dead, other), vm: { diskCount: 3 }, quick });
    const { disks, result } = expectNothingLeft(state, 'one slot');
    expect(result).toBe('Success');
    expect(disks.map(({ proxyId: reader }) => reader)).toEqual([other, other, other]);
    expect(state.transfers.most).toBe(1);
  });

  it('is waited for while no other can serve, and while the other finds no way to the repository', async () => {
    const [dead, deaf] = [await gone('p-back'), 'p-deaf'];
    const job = jobOf(dead, deaf);
    const scenes = [{ others: [] }, { others: [deaf] }].map((more) => ({ diskCount: 1, proxies: [dead], ...more }));
    const handles = await Promise.all(
      scenes.map((scene) => play.startVm({ scene, job, vm: { diskCount: 1 }, quick: { ...quick, timersBy: 60 } })),
    );
    for (const handle of handles) {
      await waitsFor(handle, /^waits for proxy p-back, silent since/);
      while (play.world.of(handle.workflowId).wanted.length < 2) await sleep(50);
    }
    await play.serve(proxyQueue(proxyId(dead)));
    for (const handle of handles) {
      const { state } = await play.ended(handle);
      expect(expectNothingLeft(state, 'back')).toMatchObject({ result: 'Success', disks: [{ proxyId: dead }] });
    }
    // The deaf one was asked for once.
    expect(play.world.of(handles[1]!.workflowId).wanted[1]!.excludedProxies).toEqual([dead, deaf]);
  });

  it('is replaced by one of this VM that has nothing left to do', async () => {
    const [dead, other] = [await gone('p-dead-2'), await ready('p-spare')];
    const scene = { proxies: [dead, other] };
    const { state } = await play.backUp({ scene, job: jobOf(dead, other), quick });
    const { disks, result } = expectNothingLeft(state, 'spare');
    expect({ result, disks }).toMatchObject({ result: 'Success', disks: [{ proxyId: other }, { proxyId: other }] });
    expect(state.wanted).toEqual([]);
  });

  it('is replaced, and all is taken again when somebody frees it', async () => {
    const [dead, other, third] = [await gone('p-dead-f'), await ready('p-freed'), await ready('p-third')];
    const scene = { diskCount: 1, proxies: [dead], others: [other], freedFor: [third] };
    const { state } = await play.backUp({ scene, job: jobOf(dead, other, third), vm: { diskCount: 1 }, quick });
    const { disks, result } = expectNothingLeft(state, 'freed');
    expect({ result, disks }).toMatchObject({ result: 'Success', disks: [{ proxyId: third }] });
    expect(state.taken).toBe(2);
  });

  it('is asked after again and again while the other is full, until it is cancelled', async () => {
    const [dead, other] = [await gone('p-dead-c'), await ready('p-full')];
    const scene = { diskCount: 1, proxies: [dead], others: [other] };
    const handle = await play.startVm({ scene, job: jobOf(dead, other), quick: { ...quick, timersBy: 60 } });
    const state = play.world.of(handle.workflowId);
    state.others.set(other, 0);
    while (state.wanted.length < 3) await sleep(50);
    await handle.cancel();
    expect((await play.ended(handle)).status).toBe('CANCELLED');
    expectNothingLeft(state, 'cancelled');
  });
});

describe.concurrent('the watch', () => {
  it('looks ever more rarely over a long wait', async () => {
    play.world.silences.set(hostCtlQueue(hostId('long')), HOUR);
    const quick = { timersBy: 100, activities: { inspectVm: { startMs: 5000 } } };
    const { workflowId } = await play.startVm({ vm: onHost('long'), quick });
    const handle = play.client.workflow.getHandle(workflowId);
    await play.ended(handle);
    const { events } = await handle.fetchHistory();
    const pauses = events!.flatMap(({ timerStartedEventAttributes: timer }) => timer?.startToFireTimeout ?? []);
    const lengths = pauses.map(({ seconds, nanos }) => Number(seconds ?? 0) * 1000 + (nanos ?? 0) / 1e6);
    // The restore point is opened beside it: on a busy machine that may be late, too, and begins the count anew.
    expect(lengths.join()).toContain('100,200,400,800');
  });

  it('writes nothing about a long transfer', async () => {
    const scene = { diskCount: 1, faults: { transferDisk: { at: 'late', times: 1 } } } as const;
    const handle = await play.startVm({ scene, quick: { timersBy: 100 } });
    await play.world.entered(handle.workflowId, 'transferDisk');
    expect(await becomesQuiet(handle)).toBe(true);
    play.world.letGoOn(handle.workflowId);
    expectNothingLeft((await play.ended(handle)).state, 'long');
  });
});

/** Its history grows no more, after the looks that follow the steps before: ten times as long as from look to look. */
async function becomesQuiet(handle: WorkflowHandle): Promise<boolean> {
  let last = -1;
  for (let tries = 0; tries < 30; tries += 1) {
    const { historyLength } = await handle.describe();
    if (historyLength === last) return true;
    last = historyLength;
    await sleep(1000);
  }
  return false;
}
