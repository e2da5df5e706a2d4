/**
 * Each process killed in turn (SIGKILL, by process id) while blocks of a real guest's disks flow; only our own supervisor
 * starts it again. The moment is proven: at least a fifth of the windows is acknowledged in the repository's ledger on
 * disk, and not all. What is asserted is the promise, word by word.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { whyNoGuest } from '../fixtures/guest/start-guest.ts';
import type { TestAgent } from '../fixtures/guest/test-agent.ts';
import { fillDisk, findDisk, prepareChunk } from '../fixtures/world/changing-disk.ts';
import { blockBytesIn, expectClean, modesOf, readOf, vmOf } from '../fixtures/world/expect-clean.ts';
import { expectRestored } from '../fixtures/world/expect-restored.ts';
import { untilFlowing } from '../fixtures/world/ledger-watch.ts';
import { noteOutcome } from '../fixtures/world/outcomes.ts';
import type { SessionReport } from '../fixtures/world/report.ts';
import { MIB, startWorld, type World } from '../fixtures/world/world.ts';

const victims = ['control', 'host', 'proxy', 'repository', 'keeper', 'temporal', 'database'] as const;
const WINDOW = 64 * MIB;
const WINDOWS = 6;
const LANES = 2;

const why = await whyNoGuest();
let world: World;
let agent: TestAgent;
let round = 0;

describe.skipIf(why !== null)(`a process dies while blocks flow${why ? ` (left out: ${why})` : ''}`, () => {
  beforeAll(async () => {
    const disks = [
      { key: 'data', sizeMib: 64, filesystem: 'ext4' },
      { key: 'second', sizeMib: WINDOWS * 64, filesystem: 'none' },
    ] as const;
    world = await startWorld({ disks: [...disks], lanes: LANES, memoryMiB: 320 });
    agent = await world.agent();
    await prepareChunk(agent);
    expect((await world.runJob()).result).toBe('Success');
  });
  afterAll(async () => {
    await world?.close();
  });

  test.for(victims)('%s is killed', async (victim) => {
    await agent.run('head -c 2000000 /dev/urandom > /mnt/data/noise; sync');
    await fillDisk(agent, 'second', WINDOWS, (round += 1));
    const before = await blockBytesIn(world.repository);
    const { pid, restarts } = await world.child(victim);
    const running = world.runWithCopies(victim);
    const flow = await untilFlowing(world.repository, world.diskBytes, 0.2);
    process.kill(pid!, 'SIGKILL');
    const startedMs = performance.now();
    const { report, copies } = await running;
    const tookMs = performance.now() - startedMs;

    expect(report.result, JSON.stringify(report.error)).toBe('Success');
    expect(vmOf(report).consistency).toBe('filesystem');
    expect(modesOf(report)).toEqual(['cbt', 'cbt']);
    const after = await world.child(victim);
    expect(after.pid).not.toBe(pid);
    expect(after.restarts).toBeGreaterThan(restarts);
    await expectRestored(world, vmOf(report).restorePointId!, copies);
    await expectClean(world, vmOf(report).runKey);
    const grown = (await blockBytesIn(world.repository)) - before;
    const twice = grown - (WINDOWS * WINDOW + 3 * MIB);
    expect(twice, 'bytes sent twice').toBeLessThanOrEqual(LANES * WINDOW);

    await agent.run(
      `${findDisk('second')} head -c 1000000 /dev/urandom | dd of=$DISK bs=1M seek=9 conv=notrunc 2>/dev/null; sync`,
    );
    const next = await world.runJob();
    expect(next.result).toBe('Success');
    expect(modesOf(next)).toEqual(['cbt', 'cbt']);
    expect(readOf(next), 'the next session reads only changes').toBeLessThan(20 * MIB);
    await noteOutcome(victim, { at: `${flow.acknowledged} of ${flow.total} windows acknowledged`, tookMs, twice });
  });

  test('`tidemark up` itself is killed, and started again', async () => {
    await fillDisk(agent, 'second', WINDOWS, (round += 1));
    const { pid } = await world.json<{ pid: number }>(['status'], [0, 3]);
    const oracle = await world.oracle();
    await oracle.arm('up');
    const { sessionId } = await world.json<{ sessionId: string }>(['job', 'run', 'nightly', '--detach']);
    const flow = await untilFlowing(world.repository, world.diskBytes, 0.2);
    process.kill(pid, 'SIGKILL');
    const startedMs = performance.now();
    await world.up();
    const report = await world.watch(sessionId);
    const tookMs = performance.now() - startedMs;
    expect(report.result, JSON.stringify(report.error)).toBe('Success');
    await expectRestored(world, vmOf(report).restorePointId!, await oracle.copies('up'));
    await expectClean(world, vmOf(report).runKey);
    await noteOutcome('`tidemark up`', {
      at: `${flow.acknowledged} of ${flow.total} windows acknowledged`,
      tookMs,
      twice: 0,
    });
  });

  test('a session stopped in the middle leaves nothing, and the next one is an increment on the last sealed one', async () => {
    const { restorePoints } = await world.json<{ restorePoints: { restorePointId: string }[] }>([
      'restore-point',
      'list',
    ]);
    const newest = restorePoints[0]!.restorePointId;
    type Shown = { manifest: { run: string } };
    const { manifest } = await world.json<Shown>(['restore-point', 'show', newest]);
    await fillDisk(agent, 'second', WINDOWS, (round += 1));
    const { sessionId } = await world.json<{ sessionId: string }>(['job', 'run', 'nightly', '--detach']);
    await untilFlowing(world.repository, world.diskBytes, 0.2);
    const stopped = await world.json<SessionReport>(['session', 'stop', sessionId, '--wait'], [1]);
    expect(stopped).toMatchObject({ result: 'Failed', error: { code: 'STOPPED' } });
    await expectClean(world, manifest.run);
    const { report, copies } = await world.runWithCopies('stopped');
    expect(report.result).toBe('Success');
    expect(modesOf(report)).toEqual(['cbt', 'cbt']);
    await expectRestored(world, vmOf(report).restorePointId!, copies);
    await expectClean(world, vmOf(report).runKey);
  });

  test('QEMU is killed: the session fails and says so, the next one compares', async () => {
    await fillDisk(agent, 'second', WINDOWS, (round += 1));
    const failing = world.runJob([1]);
    await untilFlowing(world.repository, world.diskBytes, 0.2);
    await world.endGuest('kill');
    const failed = await failing;
    expect(failed.result).toBe('Failed');
    expect(['CHECKPOINT_LOST', 'VM_OFF', 'UNREACHABLE']).toContain(vmOf(failed).error?.code);
    expect(await world.sql('select kind from leases')).toEqual([]);

    await world.startGuest({ memoryMiB: 320 });
    agent = await world.agent();
    const { report, copies } = await world.runWithCopies('after', [3]);
    expect(modesOf(report)).toEqual(['comparison', 'comparison']);
    for (const disk of vmOf(report).disks) expect(disk.reason?.message).toMatch(/\w+ \w+/);
    expect(report.result, 'a fallback is told').toBe('Warning');
    await expectRestored(world, vmOf(report).restorePointId!, copies);
    await expectClean(world, vmOf(report).runKey);
    const next = await world.runJob();
    expect(modesOf(next)).toEqual(['cbt', 'cbt']);
  });
});
