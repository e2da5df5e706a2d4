/**
 * Death between freeze and thaw. The moment is caught with the keeper's ledger on disk, where the guest is entered as
 * frozen: the host worker is stopped (SIGSTOP) at once. That the guest is frozen then is proven in the guest: a write is
 * held back.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { whyNoGuest } from '../fixtures/guest/start-guest.ts';
import { expectClean, modesOf, readOf, vmOf } from '../fixtures/world/expect-clean.ts';
import { expectRestored } from '../fixtures/world/expect-restored.ts';
import { noteOutcome } from '../fixtures/world/outcomes.ts';
import { MIB, startWorld, type World } from '../fixtures/world/world.ts';

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

/** A write in the guest that a frozen file system holds back, and whether it has come through. */
const writes = {
  begin: async (): Promise<void> => {
    const agent = await world.agent();
    await agent.run('rm -f /run/written');
    await agent.launch('date > /mnt/data/probe && sync /mnt/data/probe && touch /run/written');
    // Were it not frozen, the write would be through by the time a second command has run to its end.
    await agent.run('sleep 0.5');
  },
  areThrough: async (): Promise<boolean> => {
    const { exitCode } = await (await world.agent()).run('test -e /run/written', { mayFail: true });
    return exitCode === 0;
  },
};

/**
 * Lets the victim die while the guest is proven to be frozen. Gives when that was (`performance.now()`), and how long the
 * guest was held from then on; null when the moment was missed. The host worker runs on or anew in any case.
 */
async function dieWhileFrozen(victim: 'host' | 'keeper' | 'nobody'): Promise<{ atMs: number; heldMs: number } | null> {
  const host = (await world.child('host')).pid!;
  const dying = victim === 'nobody' ? null : (await world.child(victim)).pid!;
  try {
    if (!(await stopHostWhileFrozen(host))) return null;
    // It is entered in the ledger before it is frozen: the first write may still come through.
    for (await writes.begin(); await writes.areThrough(); await writes.begin()) if ((await frozen()) === 0) return null;
    if (dying !== null) process.kill(dying, 'SIGKILL');
    const atMs = performance.now();
    await world.until('the guest writes again', () => writes.areThrough(), 25_000);
    return { atMs, heldMs: performance.now() - atMs };
  } finally {
    letGoOn(host);
  }
}

function letGoOn(pid: number): void {
  try {
    process.kill(pid, 'SIGCONT');
  } catch {
    // It was the victim.
  }
}

describe.skipIf(why !== null)(`death between freeze and thaw${why ? ` (left out: ${why})` : ''}`, () => {
  beforeAll(async () => {
    world = await startWorld({ disks: [{ key: 'data', sizeMib: 96 }], job: ['consistency: prefer'] });
    expect((await world.runJob()).result).toBe('Success');
  });
  afterAll(() => world?.close());

  const cases = [
    ['host', 'host worker'],
    ['keeper', 'guest keeper'],
    ['nobody', 'nothing: the host worker hangs (SIGSTOP)'],
  ] as const;
  test.for(cases)('%s (%s): the guest is thawed, and the session ends whole', async ([victim, what]) => {
    for (let attempt = 1; ; attempt += 1) {
      const oracle = await world.oracle();
      const label = `${victim}${attempt}`;
      await oracle.arm(label);
      const running = world.runJob([0, 3]);
      const died = await dieWhileFrozen(victim);
      const report = await running;
      const endedMs = performance.now();
      expect(await frozen()).toBe(0);
      await expectRestored(world, vmOf(report).restorePointId!, await oracle.copies(label));
      await expectClean(world, vmOf(report).runKey);
      if (died) {
        const next = await world.runJob();
        expect(modesOf(next)).toEqual(['cbt']);
        await noteOutcome({
          what,
          when: 'the guest is frozen',
          session: `${report.result}, ${vmOf(report).consistency}-consistent`,
          tookMs: endedMs - died.atMs,
          sentTwiceBytes: null,
          heldMs: died.heldMs,
          next: `${modesOf(next)[0]}, read ${(readOf(next) / MIB).toFixed(0)} MiB of ${world.diskBytes[0]! / MIB}`,
        });
        return;
      }
      expect(attempt, 'the moment between freeze and thaw was never caught').toBeLessThan(8);
    }
  });
});
