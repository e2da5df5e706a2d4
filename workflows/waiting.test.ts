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
