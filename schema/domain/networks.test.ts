import { expect, test } from 'vitest';
import {
  contains,
  isAbout,
  isWithinHours,
  localTime,
  orderByPreference,
  parseNetwork,
  type ThrottleRule,
} from './networks.ts';

test.each([
  ['10.1.0.0/16', '10.1.255.3', true],
  ['10.1.0.0/16', '10.2.0.1', false],
  ['10.1.0.0/16', '::ffff:10.1.0.9', true],
  ['0.0.0.0/0', '203.0.113.9', true],
  ['0.0.0.0/0', '2001:db8::1', false],
  ['192.0.2.7', '192.0.2.7', true],
  ['192.0.2.7', '192.0.2.8', false],
  ['2001:db8::/32', '2001:db8:ffff::1%eth0', true],
  ['2001:db8::/32', '2001:db9::1', false],
  ['::/0', '::1', true],
  ['10.0.0.0/8', 'example', false],
])('network %s has %s: %s', (network, address, expected) => {
  expect(contains(parseNetwork(network)!, address)).toBe(expected);
});

test.each([
  '',
  '10.0.0',
  '10.0.0.256',
  '10.0.0.01',
  '10.0.0.1/8',
  '10.0.0.0/33',
  '1::2::3',
  '1:2:3',
  'fe80::1%eth0',
  'a/8',
  '10.0.0.0/8/8',
])('%j is no network', (text) => {
  expect(parseNetwork(text)).toBeNull();
});

const rule: ThrottleRule = {
  name: 'office',
  from: '10.1.0.0/16',
  to: '10.2.0.0/16',
  rateBytesPerSecond: 1000,
  hours: [],
  restores: false,
  local: false,
};

test('a rule is about transfers between its networks, whichever way; restores and one machine only when it says so', () => {
  const ends = { local: '10.2.0.5', remote: '10.1.0.5' };
  expect(isAbout(rule, ends, 'backup')).toBe(true);
  expect(isAbout(rule, { local: ends.remote, remote: ends.local }, 'backup')).toBe(true);
  expect(isAbout(rule, { ...ends, remote: '10.3.0.5' }, 'backup')).toBe(false);
  expect(isAbout(rule, ends, 'restore')).toBe(false);
  expect(isAbout({ ...rule, restores: true }, ends, 'restore')).toBe(true);
  expect(isAbout(rule, null, 'backup')).toBe(false);
  expect(isAbout({ ...rule, local: true }, null, 'backup')).toBe(true);
});

test('hours are those of the time zone, and may go over midnight', () => {
  // A Sunday, 22:30 in New York.
  const at = Date.parse('2026-11-30T03:30:00Z');
  expect(localTime('UTC', at)).toEqual({ day: 1, minute: 210 });
  expect(localTime('America/New_York', at)).toEqual({ day: 0, minute: 1350 });
  const work = [{ days: ['monday' as const], fromMinute: 480, toMinute: 1080 }];
  expect(isWithinHours(work, { day: 1, minute: 480 })).toBe(true);
  expect(isWithinHours(work, { day: 1, minute: 1080 })).toBe(false);
  expect(isWithinHours(work, { day: 2, minute: 500 })).toBe(false);
  const night = [{ days: ['sunday' as const], fromMinute: 1320, toMinute: 360 }];
  expect(isWithinHours(night, { day: 0, minute: 1350 })).toBe(true);
  expect(isWithinHours(night, { day: 1, minute: 359 })).toBe(true);
  expect(isWithinHours(night, { day: 1, minute: 360 })).toBe(false);
  expect(isWithinHours(night, { day: 0, minute: 100 })).toBe(false);
  expect(isWithinHours([], { day: 3, minute: 0 })).toBe(true);
});

test('addresses of preferred networks are tried first, in the order of these, the others as they were', () => {
  const candidates = ['192.0.2.1', '10.2.0.1', '10.1.0.1', '192.0.2.2'];
  const ordered = orderByPreference(candidates, ['10.1.0.0/16', '10.2.0.0/16'], (text) => text);
  expect(ordered).toEqual(['10.1.0.1', '10.2.0.1', '192.0.2.1', '192.0.2.2']);
  expect(orderByPreference(candidates, [], (text) => text)).toEqual(candidates);
});
