import { randomUUID } from 'node:crypto';
import type { WorkflowHandle } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { repositoryId, restorePointId, runKey, sessionId } from '../schema/domain/ids.ts';
import {
  maintenanceWorkflowId,
  nightlySteps,
  type RepositoryMaintenanceInput,
} from '../schema/domain/maintenance-sessions.ts';
import type { Damage } from '../schema/domain/maintenance.ts';
import { searchAttributeNames } from '../schema/domain/sessions.ts';
import type { Finding } from '../schema/domain/states.ts';
import { lineage, pageOf, pointId } from '../tests/fixtures/workflows/fake-maintenance.ts';
import type { RunState, Scene } from '../tests/fixtures/workflows/fake-world.ts';
import { detailsOf, type Play } from '../tests/fixtures/workflows/play.ts';
import type { QuickTime } from '../tests/fixtures/workflows/quick-time.ts';
import { startPlay } from '../tests/fixtures/workflows/start-play.ts';

let play: Play;
beforeAll(async () => {
  play = await startPlay();
});
afterAll(() => play?.close());

const why = { code: 'TORN', message: 'the sum is wrong' };
const damage: Damage = {
  kind: 'record',
  name: 'record r at 5',
  pack: 'p',
  offset: 5,
  why,
  restorePoints: [pointId(1)],
};
const check = { depth: 'full', vmId: null, restorePointId: null, maxBytes: null, maxMs: 1000 } as const;
const nightly = { steps: [...nightlySteps], check, dryRun: false };
const main = repositoryId('main');

type Options = { input?: Partial<RepositoryMaintenanceInput>; scene?: Partial<Scene>; quick?: QuickTime };
async function start({ input = {}, scene = {}, quick = {} }: Options): Promise<WorkflowHandle> {
  const id = sessionId(randomUUID());
  const workflowId = maintenanceWorkflowId(main, id);
  play.world.prepare(workflowId, scene);
  const whole = { version: 1, sessionId: id, repositoryId: main, startedBy: 'manual', ...nightly, ...input };
  return await play.start('repositoryMaintenance', workflowId, whole, quick);
}
const maintain = async (options: Options) => play.ended(await start(options));
const rowsOf = (handle: WorkflowHandle) => play.world.session(handle.workflowId.split('/').at(-1)!);
/** Its activities without those of its lease and its rows. */
const stepsOf = ({ calls }: RunState): string[] =>
  calls.filter((name) => !/^(startMaintenance|updateSession|acquire|release|othersWait|record)/.test(name));

/** Bytes of the history of each of its runs, the last one first. */
async function historiesOf({ workflowId }: WorkflowHandle): Promise<number[]> {
  const bytes: number[] = [];
  let runId: string | undefined;
  for (;;) {
    const handle = play.client.workflow.getHandle(workflowId, runId);
    const { raw } = await handle.describe();
    bytes.push(Number(raw.workflowExecutionInfo?.historySizeBytes));
    const [first] = (await handle.fetchHistory()).events ?? [];
    runId = first?.workflowExecutionStartedEventAttributes?.continuedExecutionRunId ?? '';
    if (runId === '') return bytes;
  }
}

describe('repositoryMaintenance', () => {
  it('takes its steps in order behind one slot, records what each came to, and says it all', async () => {
    const plans = [[lineage(1), lineage(2)], [lineage(3)]];
    const pages = [pageOf(0, 3, false), pageOf(3, 2, true)];
    const { status, state, handle } = await maintain({ scene: { plans, pages } });
    expect(status).toBe('COMPLETED');
    expect(await handle.result()).toEqual({ result: 'Success', findings: [], error: null });
    expect(stepsOf(state)).toEqual([
      'listRestorePoints',
      'reconcileRestorePoints',
      'describeRestorePoints',
      'importRestorePoints',
      'describeRestorePoints',
      'importRestorePoints',
      'listRestorePoints',
      'reconcileRestorePoints',
      'describeRestorePoints',
      'importRestorePoints',
      'planRetention',
      'applyRetention',
      'planRetention',
      'applyRetention',
      'collectGarbage',
      'checkRepository',
      'measureRepository',
    ]);
    expect(state.imported).toEqual([0, 1, 2, 3, 4].map(pointId));
    expect(state.outcomes.map(({ step }) => step)).toEqual([
      'import',
      'retention',
      'retention',
      'collection',
      'check',
      'statistics',
    ]);
    expect(state.outcomes[0]).toMatchObject({ counts: { restorePoints: 5, added: 5, sessionsAdded: 3 } });
    expect([state.taken, state.leases]).toEqual([1, []]);
    expect(rowsOf(handle)).toMatchObject({
      states: ['Starting', 'Working', 'Stopped'],
      result: 'Success',
      error: null,
    });
    const { searchAttributes } = await handle.describe();
    const value = (name: keyof typeof searchAttributeNames) => searchAttributes[searchAttributeNames[name]]?.[0];
    expect([value('repository'), value('state'), value('result')]).toEqual(['main', 'Stopped', 'Success']);
    expect((await detailsOf(handle)).split('\n').filter((line) => line.startsWith('| '))).toEqual([
      '| step | state | what came of it |',
      '| import | done | 5 restore points: 5 added to the catalog, 0 changed, 0 no longer there |',
      '| retention | done | 3 restore points went to the trash, 3 stay |',
      '| collection | done | 2 packs to the trash, 1 of them rewritten; 1 removed for good (2.0 KiB); 10 B that nothing needs are left |',
      '| check | done | 2 packs, 3 restore points, 4.0 KiB read: no damage |',
      '| statistics | done | 3 restore points, VMs: 1, 4.0 KiB in 1.0 KiB; 100 B of 1000 B are free |',
    ]);
  });

  it('goes on in a new run when its history has become long, as one session behind one slot', async () => {
    const EACH = 1000;
    const pages = Array.from({ length: 16 }, (_, at) => pageOf(at * EACH, EACH, at === 15));
    const plans = Array.from({ length: 24 }, (_, at) =>
      Array.from({ length: 400 }, (_each, n) => lineage(at * 1000 + n)),
    );
    const input = { steps: ['statistics', 'import', 'retention', 'check'] as const };
    const { status, state, handle } = await maintain({
      input: { ...input, steps: [...input.steps] },
      scene: { pages, plans, allKnown: true, othersWaiting: [0, 3] },
    });
    expect(status).toBe('COMPLETED');
    const bytes = await historiesOf(handle);
    expect(bytes.length).toBeGreaterThan(2);
    // Each ends at the page with which it went over 2 MiB.
    for (const each of bytes) expect(each).toBeLessThan(3.5 * 1024 * 1024);
    expect(state.calls.filter((name) => name === 'startMaintenance')).toHaveLength(1);
    expect([state.taken, state.leases]).toEqual([2, []]);
    expect(rowsOf(handle)).toMatchObject({ states: ['Starting', 'Working', 'Stopped'], result: 'Success' });
    expect(state.findings.map(({ code }) => code)).toEqual(['GAVE_WAY']);
    expect(state.outcomes.map(({ step }) => step)).toEqual([
      'statistics',
      'import',
      ...plans.map(() => 'retention'),
      'check',
    ]);
    expect(state.outcomes[1]).toMatchObject({ counts: { restorePoints: 16 * EACH, added: 0 } });
    expect(state.parts).toEqual([0, 0, ...plans.keys(), 0]);
    const details = await detailsOf(handle);
    expect(details).toContain('| import | done | 16000 restore points: 0 added');
    expect(details).toContain('| retention | done | 9600 restore points went to the trash, 9600 stay |');
    expect(details).toContain('| statistics | done |');
    const { searchAttributes } = await handle.describe();
    expect(searchAttributes[searchAttributeNames.repository]).toEqual(['main']);
  });

  it('gives its slot up between two steps when others wait, and takes it again', async () => {
    const { state, handle } = await maintain({ scene: { othersWaiting: [0, 2, 0, 1] } });
    expect(state.taken).toBe(3);
    expect(state.leases).toEqual([]);
    expect(await handle.result()).toMatchObject({ result: 'Success' });
    expect(state.findings.map(({ message }) => message)).toEqual([
      'gave way to 2 that waited for the repository',
      'gave way to 1 that waited for the repository',
    ]);
  });

  it('goes on after a step that failed, and fails with its reason', async () => {
    const faults = { collectGarbage: { at: 'before', code: 'STORAGE_ERROR', times: 9 } } as const;
    const { status, state, error, handle } = await maintain({ scene: { faults } });
    expect({ status, error }).toMatchObject({ status: 'FAILED', error: { type: 'STORAGE_ERROR' } });
    expect(state.outcomes.map(({ step }) => step)).toEqual(['import', 'retention', 'check', 'statistics']);
    expect(rowsOf(handle)).toMatchObject({
      result: 'Failed',
      error: { code: 'STORAGE_ERROR', message: 'collection: collectGarbage failed as asked' },
    });
    expect(await detailsOf(handle)).toContain('| collection | failed | collectGarbage failed as asked |');
  });

  it('fails when damage is found, names it, and takes the other steps all the same', async () => {
    const { status, state, handle } = await maintain({ scene: { damages: [damage] } });
    expect(status).toBe('FAILED');
    expect(rowsOf(handle).error).toMatchObject({
      code: 'DAMAGE_FOUND',
      message:
        '1 damaged place, by which 1 restore point cannot be restored whole; the first: record r at 5: the sum is wrong',
    });
    expect(state.outcomes.at(-1)!.step).toBe('statistics');
    const repaired = await maintain({ input: { steps: ['repair'] }, scene: { damages: [damage] } });
    expect(rowsOf(repaired.handle).error).toMatchObject({
      code: 'DAMAGE_FOUND',
      message: '1 restore points cannot be restored whole: 1.0 KiB of them are missing',
    });
  });

  it('warns of what was not done, and of a disk that fills up', async () => {
    const alarm = { level: 'warning', code: 'REPOSITORY_FILLING', message: 'repository main has 1 % free' } as const;
    const stopped = { code: 'DAMAGED_BLOCK', message: 'page p cannot be read' };
    const { status, state, handle } = await maintain({ scene: { stopped, alarms: [alarm] } });
    expect(status).toBe('COMPLETED');
    expect(rowsOf(handle)).toMatchObject({ result: 'Warning', error: null });
    expect(state.findings.map(({ message }) => message)).toEqual([
      'the collection removed nothing: page p cannot be read',
      'repository main has 1 % free',
    ]);
  });

  it('warns of restore points that have vanished from the repository', async () => {
    const lost = [7, 8, 9].map((n) => ({ restorePointId: pointId(n), vmName: `vm-${n}` }));
    const input = { steps: ['import' as const] };
    const { status, state, handle } = await maintain({ input, scene: { pages: [pageOf(0, 1, true)], lost } });
    expect(status).toBe('COMPLETED');
    expect(rowsOf(handle)).toMatchObject({ result: 'Warning', error: null });
    expect(state.findings).toHaveLength(1);
    const [{ code, message }] = state.findings as [Finding];
    expect(code).toBe('RESTORE_POINT_NOT_FOUND');
    expect(message).toContain(`3 restore points, ${pointId(7)} of VM vm-7, ${pointId(8)} of VM vm-8 and 1 more. Keep`);
    expect(state.outcomes).toMatchObject([{ counts: { removed: 3 } }]);
  });

  it('of a dry run says what would go', async () => {
    const input = { steps: ['retention' as const], dryRun: true };
    const { state, handle } = await maintain({ input, scene: { plans: [[lineage(1)]] } });
    expect(state.outcomes).toMatchObject([{ dryRun: true, lineages: [{ decisions: [{ outcome: 'would-go' }] }] }]);
    expect(await detailsOf(handle)).toContain('1 restore points would go, 1 stay');
  });

  it('warns of each VM that retention leaves alone, and of many that there are more', async () => {
    const doubt = { code: 'RESTORE_POINT_DATE', message: 'restore point p is dated 2031' };
    const plans = [0, 1, 2].map((plan) => Array.from({ length: 8 }, (_, at) => lineage(plan * 8 + at)));
    const { status, state, handle } = await maintain({ input: { steps: ['retention'] }, scene: { plans, doubt } });
    expect(status).toBe('COMPLETED');
    expect(rowsOf(handle)).toMatchObject({ result: 'Warning', error: null });
    expect(state.findings).toHaveLength(21);
    expect(state.findings[19]).toMatchObject({ level: 'warning', message: expect.stringContaining('VM vm-19: ') });
    expect(state.findings[20]!.message).toMatch(/^retention removes nothing of more VMs: /);
    expect(await detailsOf(handle)).toContain('0 restore points went to the trash, 48 stay');
  });

  it('asks about a lineage until all of it is told, and records each part', async () => {
    const scene = { plans: [[lineage(1), lineage(2)], [lineage(3)]], retainedInParts: true };
    const { status, state, handle } = await maintain({ input: { steps: ['retention'] }, scene });
    expect(status).toBe('COMPLETED');
    const planned = (answers: number) => ['planRetention', ...Array.from({ length: answers }, () => 'applyRetention')];
    expect(stepsOf(state)).toEqual([...planned(4), ...planned(2)]);
    expect(state.parts).toEqual([0, 1, 2, 3, 4, 5]);
    const told = state.outcomes.flatMap((outcome) => (outcome.step === 'retention' ? outcome.lineages : []));
    expect(told.map((each) => [each.vmName, each.stays, each.decisions.length])).toEqual(
      ['vm-1', 'vm-2', 'vm-3'].flatMap((name) => [
        [name, 0, 1],
        [name, 1, 0],
      ]),
    );
    expect(await detailsOf(handle)).toContain('| retention | done | 3 restore points went to the trash, 3 stay |');
  });

  it('ends at once when it is stopped, gives its slot back, and leaves out the rest', async () => {
    const faults = { checkRepository: { at: 'hang', times: 1 } } as const;
    const handle = await start({ scene: { faults } });
    await play.world.entered(handle.workflowId, 'checkRepository');
    await handle.cancel();
    const { status, state } = await play.ended(handle);
    expect(status).toBe('CANCELLED');
    expect(state.leases).toEqual([]);
    expect(rowsOf(handle)).toMatchObject({ result: 'Failed', error: { code: 'STOPPED' } });
    expect(await detailsOf(handle)).toMatch(/\| check \| failed .*\n\| statistics \| left-out \|/);
  });

  it('ends when it is stopped at the page after which it would go on in a new run', async () => {
    const LONG = 12_000;
    const pages = [pageOf(0, LONG, false), pageOf(LONG, 1, true)];
    // It answers although it was stopped.
    const faults = { reconcileRestorePoints: { at: 'late', times: 1 } } as const;
    const steps = ['import' as const, 'statistics' as const];
    const handle = await start({ input: { steps }, scene: { pages, allKnown: true, faults } });
    await play.world.entered(handle.workflowId, 'reconcileRestorePoints');
    await handle.cancel();
    play.world.letGoOn(handle.workflowId);
    const { status, state } = await play.ended(handle);
    expect(status).toBe('CANCELLED');
    expect(await historiesOf(handle)).toEqual([expect.toSatisfy((bytes: number) => bytes > 2 * 1024 * 1024)]);
    expect(stepsOf(state)).toEqual(['listRestorePoints', 'reconcileRestorePoints']);
    expect(state.leases).toEqual([]);
    expect(rowsOf(handle)).toMatchObject({ result: 'Failed', error: { code: 'STOPPED' } });
  });

  it('does not ask a repository that is away for the other steps, too', async () => {
    const quick = { activities: { listRestorePoints: { startMs: 300, attempts: 1 } } };
    const id = sessionId(randomUUID());
    const workflowId = maintenanceWorkflowId(repositoryId('away'), id);
    const input = { version: 1, sessionId: id, repositoryId: 'away', startedBy: 'manual', ...nightly };
    const { status, state } = await play.ended(await play.start('repositoryMaintenance', workflowId, input, quick));
    expect(status).toBe('FAILED');
    expect(state.outcomes).toEqual([]);
    expect(play.world.session(id).error).toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringContaining('repository away'),
    });
  });

  it('refuses a repository that is not there before there is a session; one of a Schedule names itself', async () => {
    const refused = await maintain({ input: { repositoryId: repositoryId('unknown') } });
    expect(refused).toMatchObject({ status: 'FAILED', error: { type: 'NOT_FOUND' } });
    expect(rowsOf(refused.handle).states).toEqual([]);
    const handle = await play.start('repositoryMaintenance', `repository-maintenance/main-${randomUUID()}`, {
      version: 1,
      sessionId: null,
      repositoryId: 'main',
      startedBy: 'schedule',
      dryRun: false,
      check: null,
      steps: ['statistics'],
    });
    await handle.result();
    const [named] = /session (\d{8}-\d{6}-[a-z0-9]{4}):/.exec(await detailsOf(handle)) ?? [];
    expect(play.world.session(named!.slice('session '.length, -1)).result).toBe('Success');
  });
});

describe('beside another maintenance of the repository', () => {
  const input = { steps: ['statistics' as const] };
  const other = (times: number) =>
    ({ faults: { startMaintenance: { at: 'before', code: 'ALREADY_RUNNING', times } } }) as const;
  const begun = ({ calls }: RunState) => calls.filter((name) => name === 'startMaintenance').length;

  it('one of a Schedule waits for the other, and then does its work', async () => {
    const scheduled = { ...input, startedBy: 'schedule' as const };
    const { status, state, handle } = await maintain({
      input: scheduled,
      scene: other(4),
      quick: { timersBy: 10_000 },
    });
    expect(status).toBe('COMPLETED');
    expect(begun(state)).toBe(5);
    expect(rowsOf(handle)).toMatchObject({ states: ['Starting', 'Working', 'Stopped'], result: 'Success' });
    expect(await detailsOf(handle)).not.toContain('startMaintenance failed');
  });

  it('it says what it waits for, and is stopped there', async () => {
    const handle = await start({ input: { ...input, startedBy: 'schedule' }, scene: other(99) });
    await play.world.entered(handle.workflowId, 'startMaintenance');
    await vi.waitFor(async () => expect(await detailsOf(handle)).toContain('startMaintenance failed as asked'), 30_000);
    await handle.cancel();
    expect(await play.ended(handle)).toMatchObject({ status: 'CANCELLED' });
  });

  it('one by hand is refused at once', async () => {
    const { status, error, state } = await maintain({ input, scene: other(1) });
    expect({ status, error }).toMatchObject({ status: 'FAILED', error: { type: 'ALREADY_RUNNING' } });
    expect(begun(state)).toBe(1);
  });
});

describe('open restore points', () => {
  const [dead, alive, strange] = ['dead', 'alive', 'strange'].map((name) => runKey(name.padEnd(12, '0')));
  const open = [dead, alive, strange].map((run, n) => ({
    restorePointId: restorePointId(`${n + 1}abc`.padEnd(32, '0')),
    run: run!,
    vmName: `vm-${n}`,
    lastWriteAt: 't',
  }));
  const artifacts = { temporary: [], referencePoints: [] };
  const scene = { site: { hosts: [], artifacts, open, named: [] }, closed: [[dead!]], unknown: [strange!] };
  const ask = (abort?: string) =>
    maintain({ input: { steps: ['open-points'], ...(abort === undefined ? {} : { abort }) }, scene });

  it('are listed with who writes to them', async () => {
    const { state, handle } = await ask();
    const writers = ['none', 'open', 'unknown'];
    expect(state.outcomes).toEqual([
      { step: 'open-points', points: open.map((point, n) => ({ ...point, writer: writers[n] })), aborted: null },
    ]);
    expect(state.witnesses).toEqual([handle.workflowId]);
    expect(state.calls).not.toContain('abortRestorePoint');
  });

  it('are aborted by order when nobody writes to them', async () => {
    const { status, state } = await ask('1abc');
    expect(status).toBe('COMPLETED');
    expect(state.point).toBe('aborted');
    expect(state.outcomes).toMatchObject([
      { points: [{ vmName: 'vm-1' }, { vmName: 'vm-2' }], aborted: open[0]!.restorePointId },
    ]);
  });

  it.each([
    ['2abc', 'ALREADY_RUNNING', 'a workflow with its run key alive0000000 is open'],
    ['3abc', 'ALREADY_RUNNING', 'nobody says whether it is written to'],
    ['4abc', 'RESTORE_POINT_NOT_FOUND', 'there is no open restore point 4abc'],
  ])('%s is refused: %s', async (abort, code, message) => {
    const { status, state, handle } = await ask(abort);
    expect(status).toBe('FAILED');
    expect(rowsOf(handle).error).toMatchObject({ code, message: expect.stringContaining(message) });
    expect(state.calls).not.toContain('abortRestorePoint');
    expect(state.outcomes).toMatchObject([{ points: [{}, {}, {}], aborted: null }]);
  });
});

describe('restorePointChange', () => {
  const change = async (number: number) => {
    const workflowId = `change-${randomUUID()}`;
    const input = {
      version: 1,
      repositoryId: main,
      restorePointId: pointId(number),
      change: { kind: 'remove', last: false },
    };
    return await play.ended(await play.start('restorePointChange', workflowId, input));
  };

  it('is done at the repository, then in the catalog; what the repository refuses changes nothing', async () => {
    const done = await change(1);
    expect(done.state.recordedPoint).toBe(true);
    expect(await done.handle.result()).toEqual({
      removed: true,
      restorePointId: pointId(1),
      trashedUntil: 't',
      asOf: 't',
    });
    const refused = await change(0);
    expect(refused).toMatchObject({
      status: 'FAILED',
      error: { type: 'RESTORE_POINT_HELD', message: 'it is held: evidence' },
    });
    expect(refused.state.recordedPoint).toBe(false);
  });
});
