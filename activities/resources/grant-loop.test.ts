import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import type { ResourceDecision } from '../../schema/domain/scheduling.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { GrantLoop, type RequestKey, type Taken, type Waiting } from './grant-loop.ts';

const { log } = testSeams();
const forever = new AbortController().signal;
const key = (workflowId: string): RequestKey => ({ workflowId, requestNumber: 0 });
const nothing: ResourceDecision = { grants: [], reasons: [] };

/** Grants whom `grant` names; the others wait. */
class Line {
  readonly inLine = new Set<string>();
  readonly granted = new Set<string>();
  passes = 0;
  failures = 0;
  readonly loop: GrantLoop;

  constructor(intervalMs = 5) {
    this.loop = new GrantLoop({ pass: () => this.#pass(), look: (of) => this.#look(of), log, intervalMs });
  }

  wait(name: string, signal = forever, reasons: Waiting[] = []) {
    this.inLine.add(name);
    return this.loop.wait(key(name), signal, (wait) => reasons.push(wait));
  }

  async #pass(): Promise<ResourceDecision> {
    this.passes += 1;
    await sleep(1);
    if (this.failures > 0) {
      this.failures -= 1;
      throw new Error('no way to the database');
    }
    const waiting = [...this.inLine].filter((name) => !this.granted.has(name));
    const reasonOf = (name: string) => ({ code: 'no-slot', message: `${name} waits` });
    return {
      ...nothing,
      reasons: waiting.map((name, index) => ({ ...key(name), position: index + 1, reason: reasonOf(name) })),
    };
  }

  async #look({ workflowId }: RequestKey): Promise<Taken> {
    if (this.granted.has(workflowId)) return { is: 'granted', leases: [] };
    if (!this.inLine.has(workflowId)) return { is: 'gone' };
    return { is: 'waiting', position: null, reason: { code: 'new', message: 'new' } };
  }
}

it('serves all waiters with each pass, and makes none while nobody waits', async () => {
  const line = new Line();
  line.loop.kick();
  await sleep(20);
  expect(line.passes).toBe(0);
  const names = Array.from({ length: 50 }, (_, n) => `w${n}`);
  const reasons: Waiting[] = [];
  const waits = names.map((name) => line.wait(name, forever, reasons));
  while (!reasons.some(({ reason }) => reason.message === 'w49 waits')) await sleep(5);
  // Fifty arrivals at once are not fifty passes.
  expect(line.passes).toBeLessThan(50);
  for (const name of names) line.granted.add(name);
  expect(await Promise.all(waits)).toEqual(names.map(() => ({ is: 'granted', leases: [] })));
  const { passes } = line;
  line.loop.kick();
  await sleep(50);
  expect(line.passes).toBe(passes);
});

it('makes a pass at once when something was given back', async () => {
  const line = new Line(3_600_000);
  const reasons: Waiting[] = [];
  const wait = line.wait('w1', forever, reasons);
  while (reasons.length === 0) await sleep(5);
  line.granted.add('w1');
  line.loop.kick();
  expect(await wait).toEqual({ is: 'granted', leases: [] });
});

it('leaves when told, and says when the request has gone', async () => {
  const line = new Line();
  const stop = new AbortController();
  const stopped = line.wait('w1', stop.signal);
  const other = line.wait('w2');
  stop.abort();
  expect(await stopped).toBeNull();
  line.inLine.delete('w2');
  expect(await other).toEqual({ is: 'gone' });
  expect(await line.loop.wait(key('w3'), stop.signal, () => undefined)).toBeNull();
});

it('goes on after passes that failed, and tells the waiters why', async () => {
  const line = new Line();
  line.failures = 2;
  const reasons: Waiting[] = [];
  const wait = line.wait('w1', forever, reasons);
  while (!reasons.some(({ position }) => position === 1)) await sleep(5);
  expect(reasons[0]).toEqual({
    position: null,
    reason: { code: 'DATABASE_ERROR', message: 'the catalog does not answer: no way to the database' },
  });
  line.granted.add('w1');
  expect(await wait).toEqual({ is: 'granted', leases: [] });
});
