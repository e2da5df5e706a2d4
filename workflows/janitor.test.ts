import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runKey } from '../schema/domain/ids.ts';
import type { JanitorResult } from '../schema/domain/maintenance-sessions.ts';
import { fakeHost, pointId } from '../tests/fixtures/workflows/fake-maintenance.ts';
import type { Scene } from '../tests/fixtures/workflows/fake-world.ts';
import { detailsOf, type Play } from '../tests/fixtures/workflows/play.ts';
import type { QuickTime } from '../tests/fixtures/workflows/quick-time.ts';
import { startPlay } from '../tests/fixtures/workflows/start-play.ts';

let play: Play;
beforeAll(async () => {
  play = await startPlay();
});
afterAll(() => play?.close());

describe('janitor', () => {
  const [dead, alive, lost, kept] = ['dead', 'alive', 'lost', 'kept'].map((name) => runKey(name.padEnd(12, '0'))) as [
    ...ReturnType<typeof runKey>[],
  ] & { length: 4 };
  const open = [dead, alive].map((run, n) => ({
    restorePointId: pointId(n + 1),
    run: run!,
    vmName: 'vm',
    lastWriteAt: 't',
  }));
  const site = {
    hosts: [fakeHost],
    artifacts: { temporary: [dead!, alive!], referencePoints: [dead!, alive!, lost!, kept!] },
    open,
    named: [kept!],
  };
  async function sweep(scene: Partial<Scene>, quick: QuickTime = { timersBy: 1000 }) {
    const workflowId = `janitor-${randomUUID()}`;
    play.world.prepare(workflowId, scene);
    play.world.of(workflowId).point = 'open';
    const handle = await play.start('janitor', workflowId, { version: 1 }, quick);
    return { result: (await handle.result()) as JanitorResult, state: play.world.of(workflowId), handle };
  }

  it('takes away what is left of runs that are over, open restore points first', async () => {
    const { result, state, handle } = await sweep({ site, closed: [[dead!, lost!, kept!]], unknown: [] });
    expect(state.broken).toEqual([]);
    expect(state.removedRuns).toEqual({ temporary: [dead], referencePoints: [dead, lost] });
    expect(result.removed).toEqual([
      `open restore point ${pointId(1)} of repository main`,
      `what there is of ${dead} (host h1)`,
      `what there is of ${dead} (host h1)`,
      `what there is of ${lost} (host h1)`,
    ]);
    expect(state.janitor).toEqual(result.removed);
    expect(state.calls.filter((name) => name === 'abortRestorePoint')).toHaveLength(1);
    expect(await detailsOf(handle)).toContain('### Taken away');
  });

  it('acts only on what is seen over twice', async () => {
    const { result, state } = await sweep({ site, closed: [[dead!, lost!], [lost!]] });
    expect(state.removedRuns).toEqual({ temporary: [], referencePoints: [lost] });
    expect(result.removed).toHaveLength(1);
    const never = await sweep({ site, closed: [[dead!], []] });
    expect([never.result.removed, never.state.removedRuns]).toEqual([[], null]);
  });

  it('removes no reference point while a repository does not say what it names', async () => {
    const faults = { namedRuns: { at: 'before', code: 'STORAGE_ERROR', times: 9 } } as const;
    const { result, state } = await sweep({ site, closed: [[dead!, lost!]], faults });
    expect(state.removedRuns).toEqual({ temporary: [dead], referencePoints: [] });
    expect(result.left).toContain('repository main is left alone: namedRuns failed as asked');
  });

  it('leaves alone what it does not know, and hosts that do not answer', async () => {
    const unknown = await sweep({ site, closed: [[]], unknown: [lost!] });
    expect(unknown.result).toEqual({
      removed: [],
      left: [`what there is of run ${lost} is left: nobody says whether it goes on`],
    });
    const faults = { listArtifactRuns: { at: 'before', code: 'STORAGE_ERROR', times: 9 } } as const;
    const silent = await sweep({ site, closed: [[dead!]], faults });
    expect(silent.state.removedRuns).toBeNull();
    expect(silent.result.removed).toHaveLength(1);
    expect(silent.result.left).toEqual(['host h1 is left alone: listArtifactRuns failed as asked']);
  });

  it('shows itself to Temporal before it acts on runs that the catalog does not know', async () => {
    const { state, handle } = await sweep({ site, closed: [[dead!]] });
    expect(state.witnesses).toEqual([null, handle.workflowId]);
  });

  it('has nothing to do before a site is applied, or when nothing is left', async () => {
    expect((await sweep({ site: null })).result).toEqual({ removed: [], left: [] });
    const nothing = { ...site, open: [], artifacts: { temporary: [], referencePoints: [kept!] } };
    const idle = await sweep({ site: nothing });
    expect(idle.result).toEqual({ removed: [], left: [] });
    expect(idle.state.calls).not.toContain('judgeRuns');
  });
});
