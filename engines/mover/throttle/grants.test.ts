import { expect, test } from 'vitest';
import type { ThrottleRule } from '../../../schema/domain/networks.ts';
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
