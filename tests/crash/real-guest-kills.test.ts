/**
 * Each process killed in turn (SIGKILL, by process id) while blocks of a real guest's disks flow; only our own supervisor
 * starts it again. The moment is proven: at least a fifth of the windows is acknowledged in the repository's ledger on
 * disk, and not all. What is asserted is the promise, word by word.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { whyNoGuest } from '../fixtures/guest/start-guest.ts';
import type { TestAgent } from '../fixtures/guest/test-agent.ts';
import { sampled } from '../fixtures/sampled.ts';
import { fillDisk, findDisk, prepareChunk } from '../fixtures/world/changing-disk.ts';
import { blockBytesIn, expectClean, modesOf, readOf, sentOf, vmOf } from '../fixtures/world/expect-clean.ts';
import { expectRestored } from '../fixtures/world/expect-restored.ts';
import { type Flow, killWhileFlowing, untilFlowing } from '../fixtures/world/ledger-watch.ts';
import { noteOutcome } from '../fixtures/world/outcomes.ts';
import type { SessionReport } from '../fixtures/world/report.ts';
import { MIB, startWorld, type World } from '../fixtures/world/world.ts';

const movers = ['control', 'host', 'proxy', 'repository'] as const;
const others = ['keeper', 'temporal', 'database', 'up'] as const;
/** Each run of the tests kills two of the first and one of the others, unless it plays all. */
const dying = [...sampled<(typeof movers | typeof others)[number]>(movers, 2), ...sampled(others, others.length)];
const victims = dying.filter((name) => name !== 'up');
const WINDOW = 64 * MIB;
const WINDOWS = 3;
const LANES = 2;

const why = await whyNoGuest();
let world: World;
let agent: TestAgent;
let round = 0;

const names = {
  control: 'control worker (all workflows)',
  host: 'host worker',
  proxy: 'proxy worker (reads and sends)',
  repository: 'repository worker (receives and writes)',
  keeper: 'guest keeper (owns monitor and agent sockets)',
  temporal: "Temporal's server",
  database: 'MariaDB',
} satisfies Record<Exclude<(typeof movers | typeof others)[number], 'up'>, string>;
const whenOf = ({ acknowledged, total }: Flow): string => `${acknowledged} of ${total} windows acknowledged`;
const nextOf = (next: SessionReport): string =>
  `${[...new Set(modesOf(next))].join(', ')}, read ${(readOf(next) / MIB).toFixed(0)} MiB of ${world.diskBytes.reduce((sum, bytes) => sum + bytes, 0) / MIB}`;

/** What the session says it sent, and what the repository's files grew by, beyond what was new on the disks. */
async function sentTwice(report: SessionReport, blockBytesBefore: number): Promise<number> {
  const fresh = WINDOWS * WINDOW + 3 * MIB;
  const grown = (await blockBytesIn(world.repository)) - blockBytesBefore;
  return Math.max(0, grown - fresh, sentOf(report) - fresh);
}

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
    const flow = await killWhileFlowing(pid!, world.repository, world.diskBytes);
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
    const sentTwiceBytes = await sentTwice(report, before);
    expect(sentTwiceBytes, 'bytes sent twice').toBeLessThanOrEqual(LANES * WINDOW);

    await agent.run(
      `${findDisk('second')} head -c 1000000 /dev/urandom | dd of=$DISK bs=1M seek=9 conv=notrunc 2>/dev/null; sync`,
    );
    const next = await world.runJob();
    expect(next.result).toBe('Success');
    expect(modesOf(next)).toEqual(['cbt', 'cbt']);
    expect(readOf(next), 'the next session reads only changes').toBeLessThan(20 * MIB);
    await noteOutcome({
      what: names[victim],
      when: whenOf(flow),
      session: 'Success by itself',
      tookMs,
      sentTwiceBytes,
      heldMs: null,
      next: nextOf(next),
    });
  });

  test.runIf(dying.includes('up'))('`tidemark up` itself is killed, and started again', async () => {
    await fillDisk(agent, 'second', WINDOWS, (round += 1));
    const before = await blockBytesIn(world.repository);
    const { pid } = await world.json<{ pid: number }>(['status'], [0, 3]);
    const oracle = await world.oracle();
    await oracle.arm('up');
    const { sessionId } = await world.json<{ sessionId: string }>(['job', 'run', 'nightly', '--detach']);
    const flow = await killWhileFlowing(pid, world.repository, world.diskBytes);
    const startedMs = performance.now();
    await world.up();
    const report = await world.watch(sessionId);
    const tookMs = performance.now() - startedMs;
    expect(report.result, JSON.stringify(report.error)).toBe('Success');
    await expectRestored(world, vmOf(report).restorePointId!, await oracle.copies('up'));
    await expectClean(world, vmOf(report).runKey);
    const sentTwiceBytes = await sentTwice(report, before);
    expect(sentTwiceBytes, 'bytes sent twice').toBeLessThanOrEqual(LANES * WINDOW);
    const next = await world.runJob();
    expect(modesOf(next)).toEqual(['cbt', 'cbt']);
    await noteOutcome({
      what: '`tidemark up` itself, started again by hand',
      when: whenOf(flow),
      session: 'Success',
      tookMs,
      sentTwiceBytes,
      heldMs: null,
      next: nextOf(next),
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
    const flow = await untilFlowing(world.repository, world.diskBytes, 0.2);
    // The rest is sent in less time than the command takes to start: held until it has asked.
    const { pid } = await world.child('proxy');
    process.kill(pid!, 'SIGSTOP');
    const stopping = world.json<SessionReport>(['session', 'stop', sessionId, '--wait'], [1]);
    await sleep(4000);
    process.kill(pid!, 'SIGCONT');
    const startedMs = performance.now();
    const stopped = await stopping;
    const tookMs = performance.now() - startedMs;
    expect(stopped).toMatchObject({ result: 'Failed', error: { code: 'STOPPED' } });
    await expectClean(world, manifest.run);
    const { report, copies } = await world.runWithCopies('stopped');
    expect(report.result).toBe('Success');
    expect(modesOf(report)).toEqual(['cbt', 'cbt']);
    await expectRestored(world, vmOf(report).restorePointId!, copies);
    await expectClean(world, vmOf(report).runKey);
    await noteOutcome({
      what: 'nothing: `tidemark session stop`',
      when: whenOf(flow),
      session: 'Failed (stopped), all undone',
      tookMs,
      sentTwiceBytes: null,
      heldMs: null,
      next: nextOf(report),
    });
  });

  test('QEMU is killed: the session fails and says so, the next one compares', async () => {
    await fillDisk(agent, 'second', WINDOWS, (round += 1));
    const failing = world.runJob([1]);
    const flow = await untilFlowing(world.repository, world.diskBytes, 0.2);
    await world.endGuest('kill');
    const startedMs = performance.now();
    const failed = await failing;
    const tookMs = performance.now() - startedMs;
    expect(failed.result).toBe('Failed');
    expect(['CHECKPOINT_LOST', 'VM_OFF', 'UNREACHABLE']).toContain(vmOf(failed).error?.code);
    expect(await world.sql('select kind from leases')).toEqual([]);

    await world.startGuest({ memoryMiB: 320 });
    agent = await world.agent();
    const { report, copies } = await world.runWithCopies('after', [3]);
    expect(modesOf(report)).toEqual(['comparison', 'comparison']);
    expect(readOf(report), 'all that is allocated is read').toBeGreaterThanOrEqual(WINDOWS * WINDOW);
    for (const disk of vmOf(report).disks) expect(disk.reason?.message).toMatch(/\w+ \w+/);
    expect(report.result, 'a fallback is told').toBe('Warning');
    await expectRestored(world, vmOf(report).restorePointId!, copies);
    await expectClean(world, vmOf(report).runKey);
    const next = await world.runJob();
    expect(modesOf(next)).toEqual(['cbt', 'cbt']);
    await noteOutcome({
      what: 'QEMU, and with it the guest',
      when: whenOf(flow),
      session: `Failed (${vmOf(failed).error!.code}), all undone`,
      tookMs,
      sentTwiceBytes: null,
      heldMs: null,
      next: `Warning, ${nextOf(report)}`,
    });
  });
});
