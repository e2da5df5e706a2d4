/** What becomes of disks whose proxy falls silent. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { proxyId } from '../schema/domain/ids.ts';
import { proxyCtlQueue, proxyQueue } from '../schema/domain/queues.ts';
import { queryNames, type VmProgress } from '../schema/domain/sessions.ts';
import type { Play } from '../tests/fixtures/workflows/play.ts';
import { expectNothingLeft, startPlay } from '../tests/fixtures/workflows/start-play.ts';

const HOUR = 3_600_000;

let play: Play;
beforeAll(async () => {
  play = await startPlay();
});
afterAll(() => play?.close());

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
  const stuck = { transferDisk: { at: 'stuck', times: 1 } } as const;

  it('is replaced by another, behind a fence of its own', async () => {
    const [dead, other] = [await dying('p-dead'), await ready('p-next')];
    const scene = { diskCount: 1, proxies: [dead], others: [dead, other], faults: stuck };
    const handle = await play.startVm({ scene, job: jobOf(dead, other), vm: { diskCount: 1 }, quick });
    const { state } = await play.ended(handle);
    play.world.letGoOn(handle.workflowId);
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
    const told = /^waits for proxy p-back, silent since/;
    for (const handle of handles) {
      while (!told.test((await handle.query<VmProgress>(queryNames.vmProgress)).waitsFor ?? '')) await sleep(50);
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
