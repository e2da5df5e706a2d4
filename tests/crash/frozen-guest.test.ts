/**
 * Death between freeze and thaw. The moment is proven from the keeper's ledger on disk: the host worker is stopped
 * (SIGSTOP) as soon as the guest is entered as frozen, and the guest is still frozen then.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { whyNoGuest } from '../fixtures/guest/start-guest.ts';
import { expectClean, vmOf } from '../fixtures/world/expect-clean.ts';
import { expectRestored } from '../fixtures/world/expect-restored.ts';
import { startWorld, type World } from '../fixtures/world/world.ts';

const why = await whyNoGuest();
let world: World;

const frozen = async (): Promise<number> => {
  const text = await readFile(path.join(world.state, 'keeper/frozen.json'), 'utf8').catch(() => '{"frozen":[]}');
  return (JSON.parse(text) as { frozen: unknown[] }).frozen.length;
};

/** Stops the host worker while the guest is frozen. False when the thaw was quicker. */
async function stopHostWhileFrozen(hostPid: number): Promise<boolean> {
  for (const end = performance.now() + 60_000; (await frozen()) === 0; await sleep(1))
    if (performance.now() > end) throw new Error('the guest was never frozen');
  // The ledger is written before the freeze: a moment later the file systems are frozen, too.
  await sleep(30);
  process.kill(hostPid, 'SIGSTOP');
  await sleep(50);
  return (await frozen()) > 0;
}

/** The tests' own agent: a write that a frozen file system would hold back. */
async function canWrite(withinMs: number): Promise<boolean> {
  const agent = await world.agent();
  const { exitCode } = await agent.run('date > /mnt/data/probe && sync /mnt/data/probe', { timeoutMs: withinMs });
  return exitCode === 0;
}

describe.skipIf(why !== null)(`death between freeze and thaw${why ? ` (left out: ${why})` : ''}`, () => {
  beforeAll(async () => {
    world = await startWorld({ disks: [{ key: 'data', sizeMib: 96 }], job: ['consistency: prefer'] });
    expect((await world.runJob()).result).toBe('Success');
  });
  afterAll(() => world?.close());

  test.for(['host', 'keeper'] as const)('%s dies: the guest is thawed, and the session ends whole', async (victim) => {
    for (let attempt = 1; ; attempt += 1) {
      const oracle = await world.oracle();
      const label = `${victim}${attempt}`;
      await oracle.arm(label);
      const host = await world.child('host');
      const dying = await world.child(victim);
      const running = world.runJob([0, 3]);
      const caught = await stopHostWhileFrozen(host.pid!);
      if (caught) process.kill(dying.pid!, 'SIGKILL');
      if (!caught || victim !== 'host') process.kill(host.pid!, 'SIGCONT');
      if (caught) expect(await canWrite(25_000), 'the guest writes again').toBe(true);
      const report = await running;
      expect(await frozen()).toBe(0);
      await expectRestored(world, vmOf(report).restorePointId!, await oracle.copies(label));
      await expectClean(world, vmOf(report).runKey);
      if (caught) return;
      expect(attempt, 'the moment between freeze and thaw was never caught').toBeLessThan(8);
    }
  });
});
