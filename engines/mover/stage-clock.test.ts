import { setImmediate as turn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { deferred } from './waiting.ts';
import { LaneClock } from './stage-clock.ts';

/** A clock that goes by hand. */
function handClock() {
  let nowMs = 0;
  const clock = new LaneClock(() => nowMs);
  const pass = (ms: number): void => void (nowMs += ms);
  return { clock, pass, compute: (ms: number) => clock.compute(() => pass(ms)) };
}
/** Until the loop has polled, and what computing left in doubt is settled. */
async function polled(): Promise<void> {
  for (let i = 0; i < 3; i += 1) await turn();
}

test('a moment is divided among the pieces in work, so that all stages come to the time that passed', async () => {
  const { clock, pass } = handClock();
  const [read, sent] = [deferred<void>(), deferred<void>()];
  const both = [clock.spend('source', () => read.promise), clock.spend('throttling', () => sent.promise)];
  pass(100);
  read.resolve();
  await both[0];
  pass(30);
  sent.resolve();
  await both[1];
  pass(1000);
  expect(clock.times).toEqual({ source: 50, proxy: 0, throttling: 80, network: 0, target: 0 });
});

test('what a read waited for the thread to hear of it is not the time of the source', async () => {
  const { clock, pass, compute } = handClock();
  const [first, second] = [deferred<void>(), deferred<void>()];
  const reads = [clock.spend('source', () => first.promise), clock.spend('source', () => second.promise)];
  pass(10);
  compute(90);
  // Heard of in the turn after: it ended meanwhile.
  await turn();
  first.resolve();
  await reads[0];
  const { source, proxy } = clock.times;
  expect(source).toBeCloseTo(5);
  expect(proxy).toBeCloseTo(60);
  await polled();
  // Heard of later: it took all that time.
  pass(20);
  second.resolve();
  await reads[1];
  expect(clock.times.source).toBeCloseTo(5 + 5 + 30 + 20);
  expect(clock.times.source + clock.times.proxy).toBeCloseTo(120);
});

test('network and target are told apart by what the target says, which may come to no more than was waited', async () => {
  const { clock, pass } = handClock();
  const away = async (ms: number): Promise<void> => {
    const answer = deferred<void>();
    const waiting = clock.spend('away', () => answer.promise);
    pass(ms);
    answer.resolve();
    await waiting;
  };
  await away(100);
  expect(clock.times).toMatchObject({ network: 100, target: 0 });
  clock.acknowledged(75);
  expect(clock.times).toMatchObject({ network: 25, target: 75 });
  await away(10);
  clock.acknowledged(5000);
  expect(clock.times).toMatchObject({ network: 25, target: 85 });
});
