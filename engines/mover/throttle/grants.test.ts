import { expect, test } from 'vitest';
import type { ThrottleRule } from '../../../schema/domain/networks.ts';
import { seeded } from '../../../tests/fixtures/mover/disks.ts';
import { type GrantedConnection, Grants } from './grants.ts';

const MIB = 1024 * 1024;
const rule = (name: string, rateBytesPerSecond: number, of: Partial<ThrottleRule> = {}): ThrottleRule => ({
  name,
  from: '10.1.0.0/16',
  to: '10.2.0.0/16',
  rateBytesPerSecond,
  hours: [],
  restores: false,
  local: false,
  ...of,
});
const between = { local: '10.2.0.1', remote: '10.1.0.1' };
const connection = (name: string, of: Partial<GrantedConnection> = {}): GrantedConnection => ({
  name,
  repositoryId: 'main',
  purpose: 'backup',
  transfer: name,
  ends: between,
  ...of,
});

/** Connections that use what `wants` says, as far as they are granted it; measured each 100 ms. */
class World {
  readonly grants = new Grants();
  readonly wants = new Map<string, number>();
  readonly #sent = new Map<string, number>();
  nowMs = Date.parse('2026-11-30T11:59:00Z');

  configure(throttle: ThrottleRule[], repositories: [string, { read?: number; write?: number }][] = []): void {
    this.grants.configure({
      networks: { timeZone: 'UTC', preferred: [], throttle },
      repositories: new Map(
        repositories.map(([id, { read, write }]) => [
          id,
          { readBytesPerSecond: read ?? null, writeBytesPerSecond: write ?? null },
        ]),
      ),
    });
  }

  add(of: GrantedConnection, wants = Infinity): void {
    this.grants.begin(of);
    this.wants.set(of.name, wants);
    this.grants.share(this.nowMs);
  }

  pass(seconds: number): void {
    for (let step = 0; step < seconds * 10; step += 1) {
      this.nowMs += 100;
      for (const [name, wants] of this.wants) {
        const { rateBytesPerSecond: rate } = this.grants.grantOf(name);
        this.#sent.set(name, (this.#sent.get(name) ?? 0) + Math.min(wants, rate === 0 ? 1e9 : rate) / 10);
        this.grants.measure(name, this.#sent.get(name)!, this.nowMs);
      }
      this.grants.share(this.nowMs);
    }
  }

  rate = (name: string): number => this.grants.grantOf(name).rateBytesPerSecond / MIB;

  /** MiB per second: what they are granted, and what flows of it. */
  sums(names: Iterable<string>): { granted: number; flowing: number } {
    const sums = { granted: 0, flowing: 0 };
    for (const name of names) {
      sums.granted += this.rate(name);
      sums.flowing += Math.min(this.rate(name), this.wants.get(name)! / MIB);
    }
    return sums;
  }
}

test('shares are equal between transfers, however many connections each has, and given back when one ends', () => {
  const world = new World();
  world.configure([rule('office', 12 * MIB)]);
  world.add(connection('a1', { transfer: 'a' }));
  world.add(connection('a2', { transfer: 'a' }));
  world.add(connection('b'));
  expect(['a1', 'a2', 'b'].map(world.rate)).toEqual([3, 3, 6]);
  world.grants.end('b');
  world.grants.share(world.nowMs);
  expect(['a1', 'a2', 'b'].map(world.rate)).toEqual([6, 6, 0]);
});

test('what a transfer does not use goes to the others within a second, and comes back when it wants it', () => {
  const world = new World();
  world.configure([rule('office', 12 * MIB)]);
  world.add(connection('idle'));
  world.add(connection('busy'));
  world.pass(2);
  expect(world.rate('busy')).toBeCloseTo(6);
  world.wants.set('idle', 0);
  world.pass(1);
  expect(world.rate('busy')).toBeCloseTo(12);
  world.wants.set('idle', 3 * MIB);
  world.pass(4);
  expect(world.rate('busy')).toBeGreaterThan(8);
  world.wants.set('idle', Infinity);
  world.pass(2);
  expect(world.rate('idle')).toBeCloseTo(6, 1);
  expect(world.rate('busy')).toBeCloseTo(6, 1);
});

test('the lowest limit wins, and a repository has limits of its own', () => {
  const world = new World();
  world.configure(
    [rule('wide', 12 * MIB), rule('narrow', 2 * MIB, { from: '10.1.5.0/24' })],
    [['main', { read: MIB, write: 8 * MIB }]],
  );
  world.add(connection('near'));
  world.add(connection('far', { ends: { local: '10.2.0.1', remote: '10.1.5.9' } }));
  world.add(connection('elsewhere', { repositoryId: 'other' }));
  world.add(connection('restore', { purpose: 'restore' }));
  world.add(connection('same machine', { ends: null, repositoryId: 'third' }));
  expect(world.grants.grantOf('far')).toEqual({ rateBytesPerSecond: 2 * MIB, limit: 'rule narrow' });
  // 12 for all three of the rule: 2, and 8 less 2 for the other of the repository.
  expect(world.rate('near')).toBeCloseTo(5);
  expect(world.rate('elsewhere')).toBeCloseTo(5);
  expect(world.grants.grantOf('restore')).toEqual({ rateBytesPerSecond: MIB, limit: 'repository main, reading' });
  expect(world.grants.grantOf('same machine')).toEqual({ rateBytesPerSecond: 0, limit: '' });
});

test('rules come and go with their hours and with the configuration, while transfers run', () => {
  const world = new World();
  const noon = [{ days: ['monday' as const], fromMinute: 720, toMinute: 721 }];
  world.configure([rule('noon', MIB, { hours: noon })]);
  world.add(connection('a'));
  expect(world.grants.isLimiting).toBe(false);
  world.pass(60);
  expect(world.grants.grantOf('a')).toEqual({ rateBytesPerSecond: MIB, limit: 'rule noon' });
  world.pass(60);
  expect(world.rate('a')).toBe(0);
  world.configure([rule('always', 2 * MIB)]);
  expect(world.grants.share(world.nowMs)).toEqual(['a']);
  expect(world.rate('a')).toBe(2);
  expect(world.grants.share(world.nowMs)).toEqual([]);
});

test('a rule holds however many there are, and those who sleep are seen when they wake up', () => {
  const world = new World();
  world.configure([rule('office', 100 * MIB)]);
  for (let at = 0; at < 100; at += 1) world.add(connection(`a${at}`));
  world.pass(1);
  expect(world.sums(world.wants.keys()).flowing).toBeCloseTo(100, 1);
  for (const name of world.wants.keys()) if (name !== 'a0') world.wants.set(name, 0);
  world.pass(1);
  expect(world.rate('a0')).toBeCloseTo(100);
  // All at once, before that is measured.
  for (const name of world.wants.keys()) world.wants.set(name, Infinity);
  expect(world.sums(world.wants.keys()).flowing).toBeLessThanOrEqual(110.1);
  world.pass(1);
  for (const name of world.wants.keys()) expect(world.rate(name)).toBeCloseTo(1, 1);
});

test('whoever wants whatever: what flows is what the limits say, and a tenth more at most when it changes', () => {
  const { next } = seeded();
  /** Of what was granted; and a byte per second for each, since nobody is granted less. */
  const untold = 1 / 0.99;
  for (let round = 0; round < 4; round += 1) {
    const world = new World();
    const [wide, narrow, written] = [1 + next(100), 1 + next(20), 1 + next(200)];
    world.configure(
      [rule('wide', wide * MIB), rule('narrow', narrow * MIB, { from: '10.1.5.0/24' })],
      [['main', { write: written * MIB }]],
    );
    const held = { wide: new Set<string>(), narrow: new Set<string>(), written: new Set<string>() };
    const count = 1 + next(300);
    const transfers = 1 + next(count);
    const anyWant = (): number => [Infinity, 0, next(100_000), next(10 * MIB), Infinity][next(5)]!;
    for (let at = 0; at < count; at += 1) {
      const transfer = next(transfers);
      const [isNarrow, isMain] = [transfer % 3 === 0, transfer % 2 === 0];
      const ends = { local: '10.2.0.1', remote: isNarrow ? '10.1.5.1' : '10.1.0.1' };
      const name = `c${at}`;
      world.add(
        connection(name, { transfer: `t${transfer}`, ends, repositoryId: isMain ? 'main' : 'other' }),
        anyWant(),
      );
      held.wide.add(name);
      if (isNarrow) held.narrow.add(name);
      if (isMain) held.written.add(name);
    }
    const most = (rate: number): number => rate * untold + count / MIB;
    const check = (isSteady: boolean): void => {
      for (const [limit, rate] of Object.entries({ wide, narrow, written })) {
        const { granted, flowing } = world.sums(held[limit as keyof typeof held]);
        expect(granted, `${limit} of ${count}`).toBeLessThanOrEqual(most(rate * 1.1));
        if (isSteady) expect(flowing, `${limit} of ${count}`).toBeLessThanOrEqual(most(rate));
      }
    };
    check(false);
    for (let change = 0; change < 5; change += 1) {
      for (const name of world.wants.keys()) if (next(3) > 0) world.wants.set(name, anyWant());
      for (let step = 0; step < 10; step += 1) {
        check(false);
        world.pass(0.1);
      }
      check(true);
    }
  }
});
