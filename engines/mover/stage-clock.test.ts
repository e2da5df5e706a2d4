import { setImmediate as turn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { deferred } from './waiting.ts';
import { stages } from '../../schema/domain/stages.ts';
import { seeded } from '../../tests/fixtures/mover/disks.ts';
import { LaneClock, stagesSince } from './stage-clock.ts';

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

/** A piece at a place, held back there for as long as it is asked to be. */
function pieceAt(clock: LaneClock, place: 'source' | 'target' | 'away') {
  const [held, done] = [deferred<void>(), deferred<void>()];
  const holding = clock.holdBack(place, () => held.promise);
  const waiting = clock.spend(place, () => done.promise);
  const goOn = async (): Promise<void> => {
    held.resolve();
    await holding;
  };
  const end = async (): Promise<void> => {
    done.resolve();
    await waiting;
  };
  return { goOn, end };
}

test('what is told while a piece is still where it was held back is above zero, and right when it has left', async () => {
  const { clock, pass } = handClock();
  const since = stagesSince(clock);
  const piece = pieceAt(clock, 'away');
  pass(900);
  await piece.goOn();
  expect(since()).toEqual({ source: 0, proxy: 0, throttling: 900, network: 0, target: 0 });
  pass(100);
  expect(since()).toEqual({ source: 0, proxy: 0, throttling: 0, network: 0, target: 0 });
  await piece.end();
  expect(since()).toEqual({ source: 0, proxy: 0, throttling: 0, network: 100, target: 0 });
});

test('a piece of which several requests are held back at once is held back once', async () => {
  const { clock, pass } = handClock();
  const piece = pieceAt(clock, 'target');
  const second = deferred<void>();
  const alsoHeld = clock.holdBack('target', () => second.promise);
  pass(60);
  second.resolve();
  await alsoHeld;
  pass(30);
  await piece.goOn();
  pass(10);
  await piece.end();
  expect(clock.times).toEqual({ source: 0, proxy: 0, throttling: 90, network: 0, target: 10 });
});

test('what a piece was held back and the thread computed meanwhile is counted once', async () => {
  const { clock, pass, compute } = handClock();
  const piece = pieceAt(clock, 'source');
  pass(10);
  compute(90);
  // Heard of in the turn after: it ended meanwhile.
  await turn();
  await piece.goOn();
  await piece.end();
  expect(clock.times).toEqual({ source: 0, proxy: 90, throttling: 10, network: 0, target: 0 });
});

test('however pieces come, are held back, told of and go, no time is below zero and none is counted twice', async () => {
  const { next } = seeded();
  const { clock, pass } = handClock();
  const since = stagesSince(clock);
  const told = { source: 0, proxy: 0, throttling: 0, network: 0, target: 0 };
  const pieces: ReturnType<typeof pieceAt>[] = [];
  let busyMs = 0;
  for (let step = 0; step < 2000; step += 1) {
    const ms = next(50);
    if (pieces.length > 0) busyMs += ms;
    pass(ms);
    const what = next(5);
    const place = (['source', 'target', 'away'] as const)[next(3)]!;
    const one = pieces[next(Math.max(1, pieces.length))];
    if (what < 2) pieces.push(pieceAt(clock, place));
    else if (what === 2) await one?.goOn();
    else if (what === 3 && one) {
      await one.goOn();
      await one.end();
      pieces.splice(pieces.indexOf(one), 1);
    } else clock.acknowledged(next(100));
    const now = since();
    for (const stage of stages) told[stage] += now[stage];
    const total = stages.reduce((sum, stage) => sum + told[stage], 0);
    expect(Math.min(...Object.values(told))).toBeGreaterThanOrEqual(0);
    expect(total).toBeLessThanOrEqual(busyMs + stages.length);
  }
  for (const piece of pieces) {
    await piece.goOn();
    await piece.end();
  }
  const all = Object.values(clock.times).reduce((sum, ms) => sum + ms, 0);
  expect(all).toBeCloseTo(busyMs, 3);
});
